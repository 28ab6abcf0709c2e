"""pellucid as it is used: the installed package's command line, one process for each measurement."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import child


@dataclass(frozen=True)
class Pellucid:
    """`python -m pellucid` of the interpreter that runs the benchmark."""

    python: str = sys.executable

    name = "pellucid"

    @property
    def version(self) -> str:
        try:
            return f"pellucid {version('pellucid')}"
        except PackageNotFoundError:
            return "pellucid, not installed (run from the source tree)"

    def throughput(self, model: Path, *, threads: int, prefill: int, decode: int) -> tuple[float, float]:
        """(prefill tokens/s, decode tokens/s), one run of each after a warm-up."""
        options = f"--threads {threads} --prefill {prefill} --decode {decode} --runs 1 --json"
        cost = child.run([self.python, "-m", "pellucid", "bench", "--model", str(model), *options.split()])
        speed = {row["kind"]: float(row["tokens_per_second"]) for row in json.loads(cost.output)["results"]}
        return speed["prefill"], speed["decode"]

    def first_token(self, model: Path, *, threads: int, prompt: str) -> child.Cost:
        """One whole process that generates one token."""
        return child.run([*self._generate(model, threads), "--max-tokens", "1", prompt])

    def generation(
        self, model: Path, *, threads: int, prompt_file: Path, context: int, decode: int
    ) -> child.Cost:
        """One whole process: the prompt of `prompt_file`, then `decode` tokens, in a context of `context`."""
        options = ["--context", str(context), "--max-tokens", str(decode), "-f", str(prompt_file)]
        return child.run([*self._generate(model, threads), *options])

    def _generate(self, model: Path, threads: int) -> list[str]:
        return [self.python, "-m", "pellucid", "generate", "--model", str(model), "--threads", str(threads)]
