"""A model whose small passes are recorded once and replayed: the same operations on the same kernels, in one native
call instead of a few hundred. The model's file knows nothing of it; the bits are the same (tests/contract).

A pass is recorded at the second time that its shape comes. The recorded buffers are overwritten by every replay.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pellucid import _native
from pellucid.models.base import Model
from pellucid.ops.cpu import CpuOps, Embedding, KVCache
from pellucid.types import Batch, Float32, Int32, Logits

MAX_ROWS: Final = 16  # beyond it, the calls cost nothing beside the arithmetic
MAX_PROGRAMS: Final = 32  # the least recently used goes first


@dataclass(frozen=True)
class _Recorded:
    batch: Batch  # the arrays that the program reads
    logits: Logits  # and the one that it writes
    program: Any
    cache: KVCache  # held, so that its id, which is part of the key, stays its own
    embedding: Embedding | None  # the table that it reads from
    sites: dict[str, Float32]  # what was asked to be looked at: [layers, rows, width] by site


class _Gather:
    """types.PassWatch of a pass that is being recorded: each site looked at is copied into one array by the program
    itself, so that a replay leaves all of them there."""

    changes = False

    def __init__(self, looks: frozenset[tuple[str, int]], num_rows: int, runner: Any) -> None:
        self.looks = looks
        self.rows: dict[str, Float32] = {}
        self._runner = runner
        self._every: Int32 = np.arange(num_rows, dtype=np.int32)
        self._layers: dict[str, list[int]] = {}
        for site, layer in sorted(looks):
            self._layers.setdefault(site, []).append(layer)

    def __call__(self, site: str, layer: int, x: Float32) -> Float32:
        layers = self._layers.get(site, ())
        if layer in layers:
            if site not in self.rows:
                self.rows[site] = np.empty((len(layers), *x.shape), np.float32)
            if len(x):  # of the last layer's late sites there may be none, where no logits are wanted
                self._runner.rows(x, self._every[: len(x)], self.rows[site][layers.index(layer)])
        return x

    def take(self, rows: dict[str, Float32]) -> None:
        raise RuntimeError("a pass that is being recorded is not a replay")


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
        watch, screening = batch.watch, self.ops.screening
        if batch.num_rows > MAX_ROWS or (watch is not None and watch.changes):
            return self._run_once(batch, cache)
        screening.by_halves = batch.choice_only and screening.pays(batch.num_logits)
        self._cover(batch)
        key = (
            id(cache),
            batch.block_tables.shape,
            batch.sequence_ids.tobytes(),
            batch.logit_rows.tobytes(),
            batch.choice_only,
            screening.by_halves,
            None if batch.head_rows is None else batch.head_rows.tobytes(),
            () if watch is None else watch.looks,
        )
        if key not in self._recorded:
            self._recorded[key] = None
            while len(self._recorded) > MAX_PROGRAMS:
                self._recorded.popitem(last=False)
            return self._run_once(batch, cache)
        self._recorded.move_to_end(key)
        recorded = self._recorded[key]
        if recorded is None:
            recorded = self._recorded[key] = self._record(batch, cache)
            if watch is not None:
                watch.take(recorded.sites)
            return recorded.logits
        np.copyto(recorded.batch.token_ids, batch.token_ids)
        np.copyto(recorded.batch.positions, batch.positions)
        np.copyto(recorded.batch.slots, batch.slots)
        np.copyto(recorded.batch.block_tables, batch.block_tables)
        self._check(batch, cache)
        self.ops.runner.run(recorded.program)
        if recorded.embedding is not None:
            recorded.embedding.note(batch.num_rows)
        if watch is not None:
            watch.take(recorded.sites)
        return recorded.logits

    def _run_once(self, batch: Batch, cache: KVCache) -> Logits:
        """A pass that may not come again: halves of a head are made ready only where passes do."""
        self.ops.screening.by_halves = False
        return self.model(batch, cache)

    def _record(self, batch: Batch, cache: KVCache) -> _Recorded:
        """Runs the pass as usual, on copies of its arrays, and keeps its operations."""
        gather = None if batch.watch is None else _Gather(batch.watch.looks, batch.num_rows, self.ops.runner)
        own = Batch(
            batch.token_ids.copy(),
            batch.positions.copy(),
            batch.slots.copy(),
            batch.sequence_ids.copy(),
            batch.block_tables.copy(),
            batch.logit_rows.copy(),
            batch.choice_only,
            None if batch.head_rows is None else batch.head_rows.copy(),
            gather,
        )
        self.ops.runner.start_recording()
        try:
            logits = self.model(own, cache)
        finally:
            program = self.ops.runner.stop_recording()
        return _Recorded(
            own, logits, program, cache, self.ops.embedded, {} if gather is None else gather.rows
        )

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
