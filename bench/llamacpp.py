"""llama.cpp as a peer: built natively from the `llama-cpp-python` source, outside the repository.

Its own tools are measured, `llama-bench` and `llama-completion`, so that no binding stands between.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import child
from machine import peers_folder

TOOLS = ("llama-bench", "llama-completion", "llama-tokenize")


@dataclass(frozen=True)
class LlamaCpp:
    """The built tools. Each method runs one process."""

    folder: Path
    version: str

    name = "llama.cpp"

    def throughput(self, model: Path, *, threads: int, prefill: int, decode: int) -> tuple[float, float]:
        """(prefill tokens/s, decode tokens/s), one run of each after llama-bench's own warm-up."""
        options = f"-t {threads} -p {prefill} -n {decode} -r 1 -o json"
        cost = child.run([str(self.folder / "llama-bench"), "-m", str(model), *options.split()])
        speed = {(row["n_prompt"], row["n_gen"]): float(row["avg_ts"]) for row in json.loads(cost.output)}
        return speed[prefill, 0], speed[0, decode]

    def first_token(self, model: Path, *, threads: int, prompt: str) -> child.Cost:
        """One whole process that generates one token. Without the warm-up pass: its faster way."""
        return child.run([*self._completion(model, threads), "--no-warmup", "-n", "1", "-p", prompt])

    def generation(
        self, model: Path, *, threads: int, prompt_file: Path, context: int, decode: int
    ) -> child.Cost:
        """One whole process: the prompt of `prompt_file`, then `decode` tokens, in a context of `context`."""
        return child.run(
            [*self._completion(model, threads), "-c", str(context), "-n", str(decode), "-f", str(prompt_file)]
        )

    def _completion(self, model: Path, threads: int) -> list[str]:
        options = f"-t {threads} -no-cnv --temp 0 --no-display-prompt".split()
        return [str(self.folder / "llama-completion"), "-m", str(model), *options]


def find_or_build() -> LlamaCpp:
    """The tools in the peers' folder; built there the first time (some minutes)."""
    peers = peers_folder()
    build = peers / "llama.cpp-build"
    if not all((build / "bin" / tool).exists() for tool in TOOLS):
        compile_tools(fetch_source(peers), build)
    return LlamaCpp(build / "bin", version_of(peers, build))


def fetch_source(peers: Path) -> Path:
    """llama.cpp's tree, from the newest source distribution of its Python binding. Pip's settings count."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "--no-build-isolation"]
    archives = sorted(peers.glob("llama_cpp_python-*.tar.gz"))
    if not archives:
        # pip runs the build backend for the metadata; without isolation it is the one that is installed.
        subprocess.run([*pip, "-d", str(peers), "llama-cpp-python"], check=True)
        archives = sorted(peers.glob("llama_cpp_python-*.tar.gz"))
    folder = peers / archives[-1].name.removesuffix(".tar.gz")
    if not folder.exists():
        with tarfile.open(archives[-1]) as archive:
            archive.extractall(peers, filter="data")
    return folder / "vendor" / "llama.cpp"


def compile_tools(source: Path, build: Path) -> None:
    """The options of a native build, as its own documentation advises for speed on the machine at hand."""
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON"]
    parts = (
        "BUILD_TESTS",
        "BUILD_EXAMPLES",
        "BUILD_SERVER",
        "BUILD_APP",
        "BUILD_UI",
        "USE_PREBUILT_UI",
        "OPENSSL",
    )
    options += ["-DBUILD_SHARED_LIBS=OFF", *(f"-DLLAMA_{part}=OFF" for part in parts)]
    subprocess.run(["cmake", "-S", str(source), "-B", str(build), *options], check=True)
    jobs = str(os.cpu_count() or 1)
    subprocess.run(["cmake", "--build", str(build), "--parallel", jobs, "--target", *TOOLS], check=True)


def version_of(peers: Path, build: Path) -> str:
    """The binding's release and the library's commit, e.g. "llama-cpp-python 0.3.36, llama.cpp 0c1e570"."""
    archives = sorted(peers.glob("llama_cpp_python-*.tar.gz"))
    release = re.sub(r"^llama_cpp_python-|\.tar\.gz$", "", archives[-1].name) if archives else "unknown"
    info = build / "common" / "build-info.cpp"
    found = re.search(r'LLAMA_COMMIT\s*=\s*"([^"]+)"', info.read_text()) if info.exists() else None
    return f"llama-cpp-python {release}, llama.cpp {found.group(1) if found else 'of unknown commit'}"
