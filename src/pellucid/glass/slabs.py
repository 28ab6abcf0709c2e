"""Memory for what is captured: large maps that are cut up, and used again."""

from __future__ import annotations

import math
import mmap
import weakref
from typing import Final

import numpy as np

from pellucid.types import Array

SLAB_BYTES: Final = 16 << 20
MOST_FREE: Final = 8  # slabs that are kept for the next capture

_free: list[mmap.mmap] = []  # slabs that nobody reads any more


def _give_back(memory: mmap.mmap) -> None:
    if len(_free) < MOST_FREE:
        _free.append(memory)


def _new_slab() -> mmap.mmap:
    """In small pages. Of huge ones the median pass that touches new memory takes a third (170 us in place of 490, 8
    sequences of SmolLM2), but the mean half as much again, in lumps of 40 ms."""
    return mmap.mmap(-1, SLAB_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Slab:
    """Memory for pieces, cut from large maps. What is not written is not touched. A few maps are kept once the last
    array in them is gone: the first touch of a page costs as much as several copies into it."""

    def __init__(self) -> None:
        self._rest: Array = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if num_bytes > SLAB_BYTES:
            return np.empty(shape, dtype)
        if num_bytes > len(self._rest):
            memory = _free.pop() if _free else _new_slab()
            self._rest = np.frombuffer(memory, np.uint8)
            weakref.finalize(self._rest, _give_back, memory).atexit = False
        part, self._rest = self._rest[:num_bytes], self._rest[-(-num_bytes // 64) * 64 :]
        return part.view(dtype).reshape(shape)
