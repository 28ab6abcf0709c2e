"""Watches a model at work inside an engine: the logits of every row that it computes, by the tokens before
it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np


class Recorder:
    """Stands in for a model. Each row's context (its token and all before it) is read back from what was
    written to the row's slots, as attention itself finds it: so a wrong block table, copy or reuse shows as
    wrong logits."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.seen: dict[tuple[int, ...], bytes] = {}  # tokens up to a row -> the hash of its logits
        self.conflicts: list[tuple[int, ...]] = []
        self.num_rows = 0
        self.largest_batch = 0  # sequences in one pass
        self._token_at: dict[int, int] = {}  # slot -> token

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def watch(self, engine: Any) -> Any:
        """Follow the engine's copies of blocks."""
        self._block = engine.pool.block_size
        copy = engine.cache.copy_blocks

        def copy_blocks(pairs: Any) -> None:
            pairs = [(int(source), int(destination)) for source, destination in pairs]
            for source, destination in pairs:
                for offset in range(self._block):
                    token = self._token_at.get(source * self._block + offset)
                    if token is not None:
                        self._token_at[destination * self._block + offset] = token
            copy(pairs)

        engine.cache.copy_blocks = copy_blocks
        return engine

    def __call__(self, batch: Any, cache: Any) -> np.ndarray:
        """All rows' logits are computed and noted; the caller gets those that it asked for."""
        rows = batch.num_rows
        every = replace(batch, logit_rows=np.arange(rows, dtype=np.int32), choice_only=False, head_rows=None)
        everything = self.model(every, cache)
        self._token_at.update(zip(batch.slots.tolist(), batch.token_ids.tolist(), strict=True))
        self.num_rows += rows
        self.largest_batch = max(self.largest_batch, len(batch.block_tables))
        for row in range(rows):
            self._note(self._context(batch, row), hashlib.sha256(everything[row]).digest())
        wanted = batch.logit_rows if batch.head_rows is None else batch.logit_rows[batch.head_rows]
        return everything[wanted]

    def _context(self, batch: Any, row: int) -> tuple[int, ...]:
        table = batch.block_tables[batch.sequence_ids[row]].tolist()
        positions = range(int(batch.positions[row]) + 1)
        return tuple(
            self._token_at[table[p // self._block] * self._block + p % self._block] for p in positions
        )

    def _note(self, context: tuple[int, ...], digest: bytes) -> None:
        if self.seen.setdefault(context, digest) != digest:
            self.conflicts.append(context)

    def digest(self, ids: list[int]) -> str:
        """One hash over the logits of every position of a sequence."""
        total = hashlib.sha256()
        for stop in range(1, len(ids) + 1):
            total.update(self.seen[tuple(ids[:stop])])
        return total.hexdigest()
