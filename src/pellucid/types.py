"""Plain data that crosses the borders between families. Imports nothing of ours."""

from __future__ import annotations

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
    logit_rows: Int32  # [num_logits] ascending; the rows whose logits are wanted
    choice_only: bool = False  # there is one such row, and a Screened in place of its logits will do

    @property
    def num_rows(self) -> int:
        return len(self.token_ids)


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


Logits = Float32 | Screened  # what a pass leaves: [num_logits, vocabulary], or one row of bounds
