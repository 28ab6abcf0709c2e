"""A `Watch` that keeps what the output projection reads, of each position from one on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pellucid.types import Float32


class HiddenRows:
    """first: the first position that is its own; a fork's are those after the fork, so a row is kept once."""

    def __init__(self, num_layers: int, width: int, first: int = 0) -> None:
        self._num_layers, self._width, self.first = num_layers, width, first
        self.looks = frozenset({("final", num_layers)})
        self.changes: frozenset[tuple[str, int]] = frozenset()
        self._rows: Float32 = np.empty((0, width), np.float32)

    @property
    def rows(self) -> NDArray[np.float64]:
        """float64 [own positions so far, width]"""
        return self._rows.astype(np.float64)

    def first_needed(self) -> int | None:
        return self.first + len(self._rows)

    def prepare(self, start: int, stop: int) -> None:
        pass

    def take(self, site: str, layers: tuple[int, ...], start: int, rows: Float32) -> None:
        new = rows[0][max(0, self.first - start) :]
        kept = self._rows[: max(0, start - self.first)]
        if start > self.first + len(self._rows):
            raise RuntimeError(f"positions {self.first + len(self._rows)} to {start - 1} were never computed")
        self._rows = np.concatenate([kept, new]) if len(new) else self._rows

    def change(self, site: str, layer: int, start: int, x: Float32) -> Float32:
        return x

    def cut(self, num_positions: int) -> None:
        self._rows = self._rows[: max(0, num_positions - self.first)]

    def fork(self) -> HiddenRows:
        return HiddenRows(self._num_layers, self._width, self.first + len(self._rows))
