"""A tiny model on disk, and ways to run the command line on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HANGS = 600.0  # seconds after which a process that should have ended does hang, on however busy a machine
# Options of a `generate` that does not end by itself: whoever stops it is in time, however slow he is.
ENDLESS = ["--ignore-eos", "--overflow", "slide", "--max-tokens", "1000000000"]


def read_all(terminal: int) -> bytes:
    """All that comes out of a pseudo-terminal until its other side is closed: one read may bring a part of it."""
    seen = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            return seen
        if not piece:
            return seen
        seen += piece


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the source tree first and nothing that changes colours or errors."""
    keep = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "PELLUCID_DEBUG", "PELLUCID_MODEL")}
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return keep | {"PYTHONPATH": path} | more


def run(
    *args: str, stdin: str | bytes = b"", timeout: float = HANGS, **env: str
) -> subprocess.CompletedProcess[bytes]:
    """`python -m pellucid ARGS` with pipes."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    command = [sys.executable, "-m", "pellucid", *args]
    return subprocess.run(command, input=data, capture_output=True, timeout=timeout, env=environment(**env))
