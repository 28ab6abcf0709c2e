"""llama.cpp and its fork ik_llama.cpp as peers: built natively, outside the repository.

llama.cpp comes with the `llama-cpp-python` source distribution; a checkout of ik_llama.cpp is named by
$PELLUCID_IK_SOURCE or lies in the peers' folder. Their own tools are measured, so that no binding stands between.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import child
from machine import Throughput, peers_folder

TOOLS = ("llama-bench", "llama-completion", "llama-batched-bench")
IK_TOOLS = ("llama-bench", "llama-cli", "llama-batched-bench")


class LlamaCpp:
    """llama.cpp's built tools. Each method runs one process."""

    name = "llama.cpp"
    slow = False
    repack: tuple[str, ...] = ()  # for llama-bench; for the other tools
    repack_flag: tuple[str, ...] = ()
    completion = ("llama-completion", "-no-cnv")

    def __init__(self) -> None:
        self.folder = peers_folder() / "llama.cpp-build" / "bin"

    def prepare(self, model: Path) -> None:
        """Build it the first time (some minutes). CalledProcessError, OSError: it cannot be had."""
        find_or_build()

    @property
    def version(self) -> str:
        return version_of(peers_folder(), self.folder.parent)

    def throughput(
        self, model: Path, *, threads: int, prefill: int, decode: int, each: int, sequences: list[int]
    ) -> Throughput:
        """llama-bench, one run of each after its own warm-up; then llama-batched-bench."""
        options = [*f"-t {threads} -p {prefill} -n {decode} -r 1 -o json".split(), *self.repack]
        cost = child.run([str(self.folder / "llama-bench"), "-m", str(model), *options])
        speed = {(row["n_prompt"], row["n_gen"]): float(row["avg_ts"]) for row in json.loads(cost.output)}
        return Throughput(speed[prefill, 0], speed[0, decode], self._batched(model, threads, each, sequences))

    def _batched(self, model: Path, threads: int, each: int, sequences: list[int]) -> dict[int, float]:
        """Number of sequences -> generated tokens/s in all; empty if the tool fails (ik_llama.cpp's may)."""
        numbers = ",".join(map(str, sequences))
        options = f"-t {threads} -c {max(sequences) * (each + 16)} -npp 8 -ntg {each} -npl {numbers}".split()
        command = [str(self.folder / "llama-batched-bench"), "-m", str(model), *options, *self.repack_flag]
        try:
            cost = child.run(command, folder=tempfile.gettempdir())  # the fork's writes a log where it runs
        except RuntimeError as error:
            print(f"{self.name}: {str(error).splitlines()[0]}", file=sys.stderr)
            return {}
        # | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG | T | S |
        rows = [
            line.strip("| ").split("|")
            for line in (cost.output + cost.messages).splitlines()
            if re.match(r"\|\s+\d+ \|", line)
        ]
        return {int(row[2]): float(row[7]) for row in rows}

    def first_token(self, model: Path, *, threads: int, prompt: str) -> child.Cost:
        """One whole process that generates one token. Without the warm-up pass: its faster way."""
        return child.run([*self._completion(model, threads), "--no-warmup", "-n", "1", "-p", prompt])

    def generation(
        self, model: Path, *, threads: int, prefill: int, prompt_file: Path, context: int, decode: int
    ) -> child.Cost:
        """One whole process: the prompt of `prompt_file`, then `decode` tokens, in a context of `context`."""
        options = ["-c", str(context), "-n", str(decode), "-f", str(prompt_file)]
        return child.run([*self._completion(model, threads), *options])

    def _completion(self, model: Path, threads: int) -> list[str]:
        tool, *more = self.completion
        options = [*f"-t {threads} --temp 0 --no-display-prompt".split(), *more, *self.repack_flag]
        return [str(self.folder / tool), "-m", str(model), *options]


class IkLlamaCpp(LlamaCpp):
    """The fork, with weights repacked as they are loaded."""

    name = "ik_llama.cpp"
    completion = ("llama-cli", "--log-disable")  # it writes a file where it runs

    def __init__(self) -> None:
        self.repack, self.repack_flag = ("-rtr", "1"), ("-rtr",)
        self.folder = peers_folder() / "ik_llama.cpp-build" / "bin"

    def prepare(self, model: Path) -> None:
        build = self.folder.parent
        if all((self.folder / tool).exists() for tool in IK_TOOLS):
            return
        source = Path(os.environ.get("PELLUCID_IK_SOURCE", peers_folder() / "ik_llama.cpp"))
        if not (source / "CMakeLists.txt").exists():
            raise OSError(f"no checkout of ik_llama.cpp in {source}; name one with PELLUCID_IK_SOURCE")
        compile_tools(source, build, IK_TOOLS)

    @property
    def version(self) -> str:
        return f"ik_llama.cpp {commit_in(self.folder.parent)}"


def find_or_build() -> None:
    """llama.cpp's tools in the peers' folder; built there the first time (some minutes)."""
    peers = peers_folder()
    build = peers / "llama.cpp-build"
    if not all((build / "bin" / tool).exists() for tool in TOOLS):
        compile_tools(fetch_source(peers), build, TOOLS)


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


def compile_tools(source: Path, build: Path, tools: tuple[str, ...]) -> None:
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
    subprocess.run(["cmake", "--build", str(build), "--parallel", jobs, "--target", *tools], check=True)


def version_of(peers: Path, build: Path) -> str:
    """The binding's release and the library's commit, e.g. "llama-cpp-python 0.3.36, llama.cpp 0c1e570"."""
    archives = sorted(peers.glob("llama_cpp_python-*.tar.gz"))
    release = re.sub(r"^llama_cpp_python-|\.tar\.gz$", "", archives[-1].name) if archives else "unknown"
    return f"llama-cpp-python {release}, llama.cpp {commit_in(build)}"


def commit_in(build: Path) -> str:
    info = build / "common" / "build-info.cpp"
    found = re.search(r'LLAMA_COMMIT\s*=\s*"([^"]+)"', info.read_text()) if info.exists() else None
    return found.group(1) if found else "of unknown commit"
