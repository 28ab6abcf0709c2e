#!/usr/bin/env python3
"""Write the outputs in docs/tutorial.md anew, by running the commands that stand above them; --check: only compare.

    python tools/gen_tutorial.py [--model PATH]
    python tools/gen_tutorial.py --check        exit status 1 if the page differs

Needs the default model (or its file), so it is no part of gen_docs.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"(<!-- run: (pellucid [^\n]*) -->\n).*?(<!-- end -->)", re.S)


def output(command: str, model: str | None) -> str:
    """What the command prints into a pipe."""
    words = shlex.split(command)[1:]
    extra = [] if model is None else ["--model", model]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "pellucid", *words, *extra],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    ).stdout


def filled(page: str, model: str | None) -> str:
    """The page with every block made anew."""

    def block(found: re.Match[str]) -> str:
        text = output(found[2], model)
        return f"{found[1]}```text\n$ {found[2]}\n{text}```\n{found[3]}"

    return BLOCK.sub(block, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="the file of SmolLM2-135M-Instruct Q4_1; default: as fetched")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = filled(before, arguments.model)
    if before == after:
        return 0
    if arguments.check:
        print(f"{PAGE.relative_to(ROOT)} differs; run python tools/gen_tutorial.py", file=sys.stderr)
        return 1
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
