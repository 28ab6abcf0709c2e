"""pellucid as it is used: the installed package's command line, one process for each measurement."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import child
from machine import Throughput


@dataclass(frozen=True)
class Pellucid:
    """`python -m pellucid` of the interpreter that runs the benchmark. bf16: with `--activations bf16`."""

    python: str = sys.executable
    bf16: bool = False

    slow = False

    @property
    def name(self) -> str:
        return "pellucid-bf16" if self.bf16 else "pellucid"

    @property
    def loading(self) -> list[str]:
        return ["--activations", "bf16"] if self.bf16 else []

    @property
    def version(self) -> str:
        try:
            return f"pellucid {version('pellucid')}"
        except PackageNotFoundError:
            return "pellucid, not installed (run from the source tree)"

    def prepare(self, model: Path) -> None:
        """Nothing: it reads the file."""

    def throughput(
        self, model: Path, *, threads: int, prefill: int, decode: int, each: int, sequences: list[int]
    ) -> Throughput:
        """One run of each after a warm-up."""
        one = self._bench(model, threads, f"--prefill {prefill} --decode {decode}")
        numbers = ",".join(map(str, sequences))
        many = self._bench(model, threads, f"--prefill 8 --decode {each} --depth 8 --sequences {numbers}")
        speed = {row["kind"]: float(row["tokens_per_second"]) for row in one["results"]}
        rows = [row for row in many["results"] if row["kind"] == "decode"]
        in_all = {row["sequences"]: float(row["tokens_per_second"]) for row in rows}
        return Throughput(speed["prefill"], speed["decode"], in_all, one["ceilings"][0])

    def _bench(self, model: Path, threads: int, options: str) -> Any:
        command = [*self._command("bench", model, threads), "--runs", "1", "--json"]
        return json.loads(child.run([*command, *options.split()]).output)

    def first_token(self, model: Path, *, threads: int, prompt: str) -> child.Cost:
        """One whole process that generates one token."""
        return child.run([*self._command("generate", model, threads), "--max-tokens", "1", prompt])

    def generation(
        self, model: Path, *, threads: int, prefill: int, prompt_file: Path, context: int, decode: int
    ) -> child.Cost:
        """One whole process: the prompt of `prompt_file`, then `decode` tokens, in a context of `context`."""
        options = ["--context", str(context), "--max-tokens", str(decode), "-f", str(prompt_file)]
        return child.run([*self._command("generate", model, threads), *options])

    def _command(self, name: str, model: Path, threads: int) -> list[str]:
        command = [self.python, "-m", "pellucid", name, "--model", str(model)]
        return [*command, "--threads", str(threads), *self.loading]
