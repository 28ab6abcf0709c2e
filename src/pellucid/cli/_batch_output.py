"""Results of a batch, a line each, appended so that a kill at any moment loses and repeats none."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from pellucid.cli._json import to_json
from pellucid.errors import UsageError

if TYPE_CHECKING:
    from pellucid.outputs import GenerationResult

_BEGINNING = b'{"index": '  # of each of our lines
SYNC_SECONDS = 1.0


def told(result: GenerationResult) -> dict[str, Any]:
    """No times and no counts of reuse: the same line gives the same bytes, whatever ran beside it."""
    samples = [sample.to_dict() for sample in result.outputs]
    out: dict[str, Any] = {
        "outputs": [{k: v for k, v in s.items() if v is not None and v != ()} for s in samples],
        "usage": {"prompt_tokens": result.counts.prompt, "generated_tokens": result.counts.generated},
    }
    seed = result.settings["seed"].value
    return out if seed is None else out | {"seed": seed}


def encoded(line: dict[str, Any]) -> bytes:
    """A line of the output."""
    return to_json(line).encode("utf-8") + b"\n"


class Pipe:
    """stdout: nothing is known of earlier runs."""

    def __init__(self) -> None:
        self.done: dict[int, str] = {}
        self.num_errors = 0

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def close(self) -> None: ...


class ResultFile:
    """done: the key of each index whose result the file has. num_errors: how many of these are errors. seen: called
    with each of them.

    A line is one write at the end of the file; the system is asked once a second, and at the end, to bring them to
    the disk. A last line without its newline was cut off by a kill: it is taken away, and its request runs again.
    Errors: UsageError (not a file of ours, or in use by another run), OSError.
    """

    def __init__(
        self, path: str, *, overwrite: bool, seen: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.path = path
        self._seen = seen
        self.done: dict[int, str] = {}
        self.num_errors = 0
        self._synced = monotonic()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise UsageError(
                    f"{path}: expected a regular file, got a device or a pipe; use stdout for these"
                )
            self._lock()
            if overwrite:
                os.ftruncate(self._file, 0)
            self._read()
        except BaseException:
            os.close(self._file)
            raise

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        if monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file)
            self._synced = monotonic()

    def close(self) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{self.path}: another run writes to it; wait for it or name another file"
            ) from None

    def _read(self) -> None:
        with open(self.path, "rb") as lines:
            whole = 0
            for number, raw in enumerate(lines, 1):
                if not raw.endswith(b"\n"):
                    if raw[: len(_BEGINNING)] != _BEGINNING[: len(raw)]:
                        raise self._foreign(number)
                    os.ftruncate(self._file, whole)
                    return
                self._note(number, raw)
                whole += len(raw)

    def _note(self, number: int, raw: bytes) -> None:
        try:
            values = json.loads(raw)
            index, key, failed = values["index"], values["key"], "error" in values
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._foreign(number) from None
        if not isinstance(index, int) or not isinstance(key, str) or index in self.done:
            raise self._foreign(number)
        self.done[index] = key
        self.num_errors += failed
        if self._seen is not None:
            self._seen(values)

    def _foreign(self, number: int) -> UsageError:
        return UsageError(
            f"{self.path}: line {number} is no result line of pellucid; name another file, or give --overwrite"
        )
