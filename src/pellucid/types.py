"""Plain data that crosses the borders between families. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Array = NDArray[Any]


@dataclass(frozen=True)
class LayerSpec:
    """What one layer asks of the KV cache. `window` None: it attends to all earlier positions;
    w: to itself and the w - 1 positions before it."""

    num_kv_heads: int
    head_dim: int
    window: int | None = None


@dataclass(frozen=True)
class Batch:
    """One forward pass, ragged: `rows` tokens of `num_sequences` sequences. All arrays int32, C-contiguous.

    The rows of one sequence are contiguous, with ascending consecutive positions. Every position before a
    row's own is either in the cache already or an earlier row of this batch (causal structure).
    """

    token_ids: Int32  # [rows]
    positions: Int32  # [rows] absolute position in the sequence, from 0
    slots: Int32  # [rows] where this row's K and V go: block_id * block_size + offset
    sequence_ids: Int32  # [rows] row of `block_tables`
    block_tables: Int32  # [num_sequences, max_blocks] block ids in order of position; unused entries 0
    logit_rows: Int32  # [num_logits] ascending; the rows whose logits are wanted: they go through the whole last layer
    choice_only: bool = False  # a Screened in place of the logits of each will do
    head_rows: Int32 | None = (
        None  # [num_logits] ascending: those of logit_rows that have logits; None: all of them
    )
    watch: PassWatch | None = None  # who looks at the sites of this pass, or changes them

    @property
    def num_rows(self) -> int:
        return len(self.token_ids)

    @property
    def num_logits(self) -> int:
        return len(self.logit_rows if self.head_rows is None else self.head_rows)

    def site(self, name: str, layer: int, x: Float32) -> Float32:
        """A place in a model's page that can be looked at, and changed: x [rows, width] as it flows through it. The
        names are `ops.base.SITES`."""
        return x if self.watch is None else self.watch(name, layer, x)


class PassWatch(Protocol):
    """Who looks at the sites of one pass (glass/sites.py), or changes what flows through them.

    looks: the (site, layer) pairs looked at. changes: it may return something else than it was given, so
    that the pass cannot be replayed; otherwise a backend may call `take` after the pass in place of each call.
    """

    looks: frozenset[tuple[str, int]]
    changes: bool

    def __call__(self, site: str, layer: int, x: Float32) -> Float32:
        """x [rows, width] as it is at this site -> what the model goes on with; the array is valid during the call."""

    def take(self, rows: dict[str, Float32]) -> None:
        """By site: [layers looked at, ascending; rows; width], valid during the call."""


class Watch(Protocol):
    """Who looks at the rows of one sequence, or changes them. A position may be computed, and so taken, more than once
    (rejected drafts, preemption): the last time counts.

    looks, changes: (site, layer) pairs, the same for its whole life. Sequences share computed positions with those of
    an equal `Sequence.salt`: whoever gives a watch that changes something gives a salt that says what.
    A watch may have `logit_rows_only = True`: at "final" the rows whose logits are wanted are enough for it, so that
    the other rows of a prompt need not go through the whole last layer. It may get more. And it may have
    `row_taker(site, layers)`, which gives a quicker `take` for passes with one row of its sequence, of (position, row
    [layers, width]), or None.
    """

    looks: frozenset[tuple[str, int]]
    changes: frozenset[tuple[str, int]]

    def first_needed(self) -> int | None:
        """The first position that has to be computed even if it could be taken from the cache; None: none has to."""

    def prepare(self, start: int, stop: int) -> None:
        """Positions [start, stop) are about to be computed; those before are, of the tokens that the sequence has now.
        A PellucidError ends the sequence's request before the pass."""

    def take(self, site: str, layers: tuple[int, ...], start: int, rows: Float32) -> None:
        """rows [layers, positions from start on, width], valid during the call."""

    def change(self, site: str, layer: int, start: int, x: Float32) -> Float32:
        """x [positions from start on, width] -> the same shape; x itself is not to be written."""

    def cut(self, num_positions: int) -> None:
        """What comes after the first num_positions positions is no part of the sequence any more."""

    def fork(self) -> Watch:
        """Of a sequence that has the same positions computed, and goes its own way from here."""


class Screened(Protocol):
    """One row of logits that is known by upper bounds, for who needs no more than a choice. It is valid until the
    model's next call. The choices are those of the exact logits, to the last bit."""

    def choose(
        self, temperature: float, min_p: float, seed: int, sample: int, position: int, stream: int
    ) -> int | None:
        """temperature 0: the largest logit; else the largest logit / temperature + keyed Gumbel noise
        (sampling/random.py), with min_p > 0 among those that sampling/min_p.py keeps. The lowest id of
        equals. None: nothing can be said, since some bound is not finite: see `exact`."""

    def exact(self) -> Float32:
        """float32 [1, vocabulary], all of them, computed now."""


Logits = Float32 | Sequence[Screened]  # what a pass leaves: [num_logits, vocabulary], or bounds of each row
