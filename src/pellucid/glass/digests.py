"""Eight bytes that stand for a row of floats, and one number from which the gap between two rows can be estimated."""

from __future__ import annotations

import sys
from functools import cache
from hashlib import blake2b, shake_128
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.types import Float32, Int32

LITTLE = sys.byteorder == "little"
NEWEST = 64  # rows of a pass that are kept: a pass gives tokens from its last rows, drafts among them


def digest(row: Float32) -> int:
    """BLAKE2b with 8 bytes of output, over the row's float32 in little-endian order, read as a little-endian
    integer."""
    data = row if LITTLE and row.flags.c_contiguous else np.ascontiguousarray(row, "<f4")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")  # type: ignore[arg-type]  # a buffer


def digest_ids(token_ids: Int32) -> str:
    """Of the tokens of a context, 16 hexadecimal digits: BLAKE2b with 8 bytes of output over int32, little-endian."""
    return blake2b(np.ascontiguousarray(token_ids, "<i4").data, digest_size=8).hexdigest()


@cache
def signs(width: int) -> NDArray[np.float32]:
    """float32 [width] of +1 and -1: the bits of SHAKE-128("pellucid sketch"), lowest first; 1 is -1."""
    data = shake_128(b"pellucid sketch").digest(-(-width // 8))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=width, bitorder="little")
    return (1 - 2.0 * bits).astype(np.float32)


def sketch(row: Float32) -> float:
    """The row's product with `signs`. Of two rows, the square of the difference of their sketches is in the mean over
    signs the square of their distance (Alon, Matias, Szegedy 1996), so the difference is an estimate of the
    distance."""
    return float(np.dot(row, signs(len(row))))


class Rows(NamedTuple):
    """final: float32 [width], what the head reads at one position. layers: [layers, width], each layer's output
    there."""

    final: Float32
    layers: Float32 | None

    def told(self) -> tuple[int, float, tuple[int, ...] | None]:
        """(digest, sketch, the layers' digests)"""
        layers = None if self.layers is None else tuple(digest(row) for row in self.layers)
        return digest(self.final), sketch(self.final), layers


Taken = tuple[int, Float32]  # position of the first, [layers, positions, width]


def rows_of(final: Taken | None, outputs: Taken | None, position: int) -> Rows | None:
    """Of what a watch had taken; None: the position is not among it."""
    if final is None or not final[0] <= position < final[0] + final[1].shape[1]:
        return None
    layers = None
    if outputs is not None and outputs[0] <= position < outputs[0] + outputs[1].shape[1]:
        layers = outputs[1][:, position - outputs[0]]
    return Rows(final[1][0, position - final[0]], layers)


class DigestWatch:
    """types.Watch that keeps the newest rows of the final hidden state, and of each layer's output where asked for,
    until their digests are wanted. family: this watch and its forks, in the order of the forks: the samples of one
    request. logit_rows_only: of the final hidden state, the rows from which tokens are chosen will do."""

    changes: frozenset[tuple[str, int]] = frozenset()

    def __init__(
        self,
        num_layers: int,
        *,
        layers: bool,
        newest: int = NEWEST,
        family: list[DigestWatch] | None = None,
        logit_rows_only: bool = False,
    ) -> None:
        self._num_layers, self._layers, self._newest = num_layers, layers, newest
        self.logit_rows_only = logit_rows_only
        self.looks = frozenset({("final", num_layers)})
        if layers:
            self.looks |= {("resid_post", layer) for layer in range(num_layers)}
        self.final: Taken | None = None
        self.outputs: Taken | None = None
        self.family = family
        if family is not None:
            family.append(self)

    def rows_at(self, position: int) -> Rows | None:
        """Of the row at a position; None: it is none of the newest. They stay what they are."""
        return rows_of(self.final, self.outputs, position)

    # --- types.Watch ------------------------------------------------------------------------------------
    def first_needed(self) -> int | None:
        return None

    def prepare(self, start: int, stop: int) -> None:
        pass

    def take(self, site: str, layers: tuple[int, ...], start: int, rows: Float32) -> None:
        count = rows.shape[1]
        if count > self._newest:
            rows, start = rows[:, -self._newest :], start + count - self._newest
        if site == "final":
            self.final = (start, rows.copy())
        elif len(layers) == 1:  # one layer at a time, where a pass is not replayed
            self._assemble(layers[0], start, rows[0])
        else:
            self.outputs = (start, rows.copy())

    def _assemble(self, layer: int, start: int, rows: Float32) -> None:
        """Layers come in ascending order."""
        if layer == 0 or self.outputs is None:
            self.outputs = (start, np.empty((self._num_layers, *rows.shape), np.float32))
        self.outputs[1][layer] = rows

    def change(self, site: str, layer: int, start: int, x: Float32) -> Float32:
        return x

    def cut(self, num_positions: int) -> None:
        pass  # what is computed again is taken again, before anybody asks for it

    def fork(self) -> DigestWatch:
        other = DigestWatch(
            self._num_layers,
            layers=self._layers,
            newest=self._newest,
            family=self.family,
            logit_rows_only=self.logit_rows_only,
        )
        other.final, other.outputs = self.final, self.outputs  # what was taken is not written again
        return other
