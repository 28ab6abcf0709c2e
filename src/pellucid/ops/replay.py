"""A model whose small passes are recorded once and replayed: the same operations on the same kernels, in one native
call instead of a few hundred. The model's file knows nothing of it; the bits are the same (tests/contract).

A pass is recorded at the second time that its shape comes. The recorded buffers are overwritten by every replay.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from pellucid import _native
from pellucid.models.base import Model
from pellucid.ops.cpu import CpuOps, KVCache
from pellucid.types import Batch, Logits

MAX_ROWS: Final = 16  # beyond it, the calls cost nothing beside the arithmetic
MAX_PROGRAMS: Final = 32  # the least recently used goes first


@dataclass(frozen=True)
class _Recorded:
    batch: Batch  # the arrays that the program reads
    logits: Logits  # and the one that it writes
    program: Any
    cache: KVCache  # held, so that its id, which is part of the key, stays its own


def _whole(batch: Batch) -> Batch:
    """The same pass with all logits: a screen is made ready only where passes come again."""
    return replace(batch, choice_only=False) if batch.choice_only else batch


class Replay:
    """Model protocol, around a model on CpuOps. The logits are valid until the next call."""

    def __init__(self, model: Model, ops: CpuOps) -> None:
        self.model, self.ops = model, ops
        self.architecture, self.layers = model.architecture, model.layers
        self.width, self.vocabulary_size = model.width, model.vocabulary_size
        self.context_length = model.context_length
        self._rope_version = 0
        self._recorded: OrderedDict[tuple[Any, ...], _Recorded | None] = OrderedDict()

    def __call__(self, batch: Batch, cache: KVCache) -> Logits:
        if batch.num_rows > MAX_ROWS:
            return self.model(_whole(batch), cache)
        if batch.choice_only and not self.ops.screening.pays():
            batch = _whole(batch)
        self._cover(batch)
        key = (
            id(cache),
            batch.block_tables.shape,
            batch.sequence_ids.tobytes(),
            batch.logit_rows.tobytes(),
            batch.choice_only,
        )
        if key not in self._recorded:
            self._recorded[key] = None
            while len(self._recorded) > MAX_PROGRAMS:
                self._recorded.popitem(last=False)
            return self.model(_whole(batch), cache)
        self._recorded.move_to_end(key)
        recorded = self._recorded[key]
        if recorded is None:
            recorded = self._recorded[key] = self._record(batch, cache)
            return recorded.logits
        np.copyto(recorded.batch.token_ids, batch.token_ids)
        np.copyto(recorded.batch.positions, batch.positions)
        np.copyto(recorded.batch.slots, batch.slots)
        np.copyto(recorded.batch.block_tables, batch.block_tables)
        self._check(batch, cache)
        self.ops.runner.run(recorded.program)
        return recorded.logits

    def _record(self, batch: Batch, cache: KVCache) -> _Recorded:
        """Runs the pass as usual, on copies of its arrays, and keeps its operations."""
        own = Batch(
            batch.token_ids.copy(),
            batch.positions.copy(),
            batch.slots.copy(),
            batch.sequence_ids.copy(),
            batch.block_tables.copy(),
            batch.logit_rows.copy(),
            batch.choice_only,
        )
        self.ops.runner.start_recording()
        try:
            logits = self.model(own, cache)
        finally:
            program = self.ops.runner.stop_recording()
        return _Recorded(own, logits, program, cache)

    def _cover(self, batch: Batch) -> None:
        """Fill the rotation tables; programs that hold a table that has been replaced are forgotten."""
        last = _native.largest(batch.positions)
        for table in self.ops.rope_tables:
            table.cover_up_to(last)
        version = sum(table.version for table in self.ops.rope_tables)
        if version != self._rope_version:
            self._rope_version = version
            self._recorded.clear()

    def _check(self, batch: Batch, cache: KVCache) -> None:
        """What the operations check of their arguments when they are called one by one."""
        _native.check_range(batch.token_ids, self.vocabulary_size, "a token id")
        _native.check_range(batch.positions, self.context_length, "a position")
        _native.check_range(batch.slots, cache.num_blocks * cache.block_size, "a slot")
        _native.check_range(batch.block_tables.ravel(), cache.num_blocks, "a block")
