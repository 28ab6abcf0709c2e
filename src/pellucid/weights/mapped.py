"""A memory-mapped, read-only model file with bounds: nothing is read but through a check against its size."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

import numpy as np

from pellucid.errors import ModelFileError, ModelNotFoundError
from pellucid.types import Bytes


def quoted(name: str, limit: int = 60) -> str:
    """A name out of a file, fit for one line of an error message: escaped, and cut (visibly) at `limit`."""
    return ascii(name) if len(name) <= limit else f"{name[:limit]!a}... ({len(name)} characters)"


def require_regular_file(path: Path) -> int:
    """Its size in bytes. Errors: absent; not a regular file (a pipe would block, a folder has no bytes)."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path}: expected a file, found nothing; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise ModelFileError(path, "file", f"cannot be examined: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(path, "file", "expected a regular file; this is a folder, a pipe or a device")
    return status.st_size


class MappedFile:
    """`data`: all bytes as uint8 [size]; `view`: the same for `struct`. The map lives as long as its views.

    The map shows the file as it is on disk: one that is cut short while it is open cannot be caught (SIGBUS).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = require_regular_file(path)
        self.data: Bytes = np.empty(0, np.uint8)
        self.view = memoryview(b"")
        self._map: mmap.mmap | None = None
        if self.size == 0:
            return  # an empty map is refused by the system; readers find that nothing fits
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelFileError(path, "file", f"cannot be mapped: {error}") from None
        self.size = len(self._map)  # what was mapped is what may be read
        self.data = np.frombuffer(self._map, np.uint8)
        self.view = memoryview(self._map)

    def holds(self, data: Bytes, start: int) -> bool:
        """Whether this array is a view of the map from byte `start` on."""
        return len(data) == 0 or _address(data) == _address(self.data) + start

    def release(self, start: int, stop: int) -> None:
        """Let the pages of bytes [start, stop) leave this process's memory; if read again, they come back."""
        advice = getattr(mmap, "MADV_DONTNEED", None)
        if self._map is None or advice is None or stop <= start:
            return
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(advice, first, min(stop, self.size) - first)

    def read(self, start: int, stop: int) -> bytes:
        """A copy of bytes [start, stop), which the caller has checked to lie in the file."""
        if not 0 <= start <= stop <= self.size:
            raise IndexError(f"{self.path}: bytes [{start}, {stop}) of {self.size}")
        return bytes(self.view[start:stop])


def _address(array: Bytes) -> int:
    where: int = array.__array_interface__["data"][0]  # array.ctypes would import a module at every start
    return where


def read_small_file(path: Path, limit: int) -> bytes:
    """The whole of a file that has no business being large, such as a config.json."""
    size = require_regular_file(path)
    if size > limit:
        raise ModelFileError(path, "file", f"expected at most {limit} bytes, it has {size}")
    try:
        with open(path, "rb") as file:
            content = file.read(size + 1)  # a read of `limit` would allocate that much
    except OSError as error:
        raise ModelFileError(path, "file", f"cannot be read: {os.strerror(error.errno or 0)}") from None
    if len(content) != size:
        raise ModelFileError(path, "file", f"had {size} bytes, and changed while it was read")
    return content
