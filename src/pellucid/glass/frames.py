"""The container of a run file: frames, appended one by one, each checked. Knows bytes, nothing of what they mean.

A file is 8 bytes of magic, then frames: kind (uint8), length of the payload (uint24), a check byte of these four, the
payload, and CRC-32 of everything from the magic to the payload's end. So a frame that is changed, left out, repeated or
moved is found, and a file that a kill has cut is read up to the last whole frame. All numbers are little-endian.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NoReturn
from zlib import crc32

from pellucid.errors import RunFileError

MAGIC = b"pllcdrun"
HEAD, TAIL = 5, 4  # bytes around a payload
MOST = (1 << 24) - 1  # bytes of a payload
_NO_FILE = "is a folder, a device or a pipe; give a file"


def check_byte(head: bytes) -> int:
    """Of kind and length: another one for every change of a single byte."""
    return (head[0] + 3 * head[1] + 5 * head[2] + 7 * head[3] + 0x5A) & 0xFF


class FrameWriter:
    """Appends frames to a file. What is written is handed to the system at once: a kill loses none of it.

    RunFileError: the file cannot be written. A frame that was written in part is cut off again, if it can be.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            _check_replaceable(path)
            self._file = open(path, "wb", buffering=0, opener=_private)  # noqa: SIM115  closed by close()
        except (OSError, ValueError) as error:
            self._fail(error)
        self._crc = crc32(MAGIC)
        self.num_bytes = 0
        self._put(MAGIC)

    def write(self, kind: int, payload: bytes) -> None:
        self.write_all([(kind, payload)])

    def write_all(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """Several (kind, payload), in one go."""
        parts: list[bytes] = []
        crc = self._crc
        for kind, payload in frames:
            if len(payload) > MOST:
                raise RunFileError(
                    f"{self.path}: a frame of {len(payload)} bytes, more than the format's {MOST}"
                )
            head = _head(kind, len(payload))
            crc = crc32(payload, crc32(head, crc))
            parts += (head, payload, crc.to_bytes(TAIL, "little"))
        self._put(b"".join(parts))
        self._crc = crc

    def _put(self, data: bytes) -> None:
        try:
            written = self._file.write(data)
        except (OSError, ValueError) as error:
            self._fail(error)
        if written != len(data):
            self._file.truncate(self.num_bytes)
            raise RunFileError(f"{self.path}: cannot be written: no room; what came before is whole")
        self.num_bytes += written

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def _fail(self, error: Exception) -> NoReturn:
        reason = getattr(error, "strerror", None) or error
        raise RunFileError(f"{self.path}: cannot be written: {reason}") from None


@lru_cache(maxsize=64)
def _head(kind: int, length: int) -> bytes:
    """The bytes before a payload; frames of one kind are mostly of one length."""
    head = bytes((kind,)) + length.to_bytes(3, "little")
    return head + bytes((check_byte(head),))


def _private(path: str, flags: int) -> int:
    """Opened for its owner alone: what was said stands in it."""
    return os.open(path, flags, 0o600)


def _check_replaceable(path: str) -> None:
    """ValueError: what is there is neither empty nor a run file, nor a new name."""
    if not os.path.lexists(path):
        return
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(_NO_FILE)
    if os.path.isfile(path) and os.path.getsize(path):
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError("exists and is no run file; give another name, or remove it")


class FrameReader:
    """The frames of a file, in order: (offset, kind, payload). num_cut_bytes: behind the last whole frame, once all
    are read. RunFileError: unreadable, no run file, or damaged (another byte, not only an early end)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.num_cut_bytes = 0
        if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe waits for who writes into it
            self.fail(_NO_FILE)
        try:
            with open(path, "rb") as file:
                self._data = file.read()
        except FileNotFoundError:
            self.fail("no such file")
        except (OSError, ValueError) as error:
            self.fail(f"cannot be read: {getattr(error, 'strerror', None) or error}")
        if self._data[: len(MAGIC)] != MAGIC:
            self.fail("is no run file: it does not begin with the magic of one")

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        data, at, crc = self._data, len(MAGIC), crc32(MAGIC)
        while at < len(data):
            head = data[at : at + HEAD]
            if len(head) == HEAD and check_byte(head) != head[4]:
                self.fail(f"is damaged at byte {at}: no frame begins there")
            end = at + HEAD + int.from_bytes(head[1:4], "little")
            if len(head) < HEAD or end + TAIL > len(data):
                self.num_cut_bytes = len(data) - at
                return
            crc = crc32(data[at:end], crc)
            if crc != int.from_bytes(data[end : end + TAIL], "little"):
                self.fail(f"is damaged: the frame at byte {at} has another checksum")
            yield at, head[0], data[at + HEAD : end]
            at = end + TAIL

    def fail(self, problem: str) -> NoReturn:
        raise RunFileError(f"{self.path}: {problem}")
