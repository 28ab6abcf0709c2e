"""Run one process from start to end and say what it cost: wall time, first output byte, peak memory."""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """`wall`, `first_byte`: seconds since before the fork. `peak_rss`: bytes, as the kernel counted it."""

    wall: float
    first_byte: float | None
    peak_rss: int
    output: str
    messages: str = ""  # stderr


def run(
    command: Sequence[str],
    *,
    timeout: float = 600,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> Cost:
    """Run `command` without input. RuntimeError, with its messages, if it fails or exceeds `timeout` s.

    Python may write bytecode, as it does where packages are installed: the round before the first that counts does.
    """
    variables = dict(os.environ if environment is None else environment)
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=nothing, stdout=subprocess.PIPE, stderr=errors, env=variables
        )
        try:
            output, first_byte = drain(process, start, timeout)
            # wait4 instead of Popen.wait: it gives this child's own peak, not the largest of all children.
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        errors.seek(0)
        messages = errors.read().decode(errors="replace")
        if process.returncode != 0:
            tail = messages[-2000:]
            raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}\n{tail}")
    peak = usage.ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)  # Linux counts KiB, macOS bytes
    return Cost(wall, first_byte, peak, output.decode(errors="replace"), messages)


def drain(process: subprocess.Popen[bytes], start: float, timeout: float) -> tuple[bytes, float | None]:
    """All of the child's stdout, and when its first byte that is not white space came."""
    assert process.stdout is not None
    chunks: list[bytes] = []
    first_byte: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = timeout - (time.perf_counter() - start)
            if left <= 0 or not selector.select(left):
                raise RuntimeError(f"{process.args!r}: no end within {timeout} s")
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return b"".join(chunks), first_byte
            if first_byte is None and chunk.strip():
                first_byte = time.perf_counter() - start
            chunks.append(chunk)
