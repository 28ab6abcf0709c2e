"""One forward pass by hand, without an engine: sequences cut into batches, blocks placed wherever a test
likes."""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.types import Batch

BLOCK = 16


class Runner:
    """Feeds sequences to a model in any cuts, and gathers the logits of every position."""

    def __init__(
        self,
        model: Any,
        ops: Any,
        *,
        num_blocks: int = 64,
        block: int = BLOCK,
        kv_format: str = "f16",
        seed: int | None = None,
    ):
        self.model, self.block = model, block
        self.cache = ops.kv_cache(model.layers, num_blocks, block, kv_format)
        order = np.arange(num_blocks) if seed is None else np.random.default_rng(seed).permutation(num_blocks)
        self.free = order.astype(np.int32).tolist()
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}

    def step(self, pieces: list[tuple[str, list[int]]], logit_rows: list[int] | None = None) -> np.ndarray:
        """One pass of the next tokens of some sequences, (name, token ids) each -> logits of all rows, or
        of some."""
        tokens, positions, slots, owners = [], [], [], []
        for owner, (name, ids) in enumerate(pieces):
            table = self.tables.setdefault(name, [])
            start = self.lengths.get(name, 0)
            while len(table) * self.block < start + len(ids):
                table.append(self.free.pop(0))
            for position, token in enumerate(ids, start):
                tokens.append(token)
                positions.append(position)
                slots.append(table[position // self.block] * self.block + position % self.block)
                owners.append(owner)
            self.lengths[name] = start + len(ids)
        width = max(len(self.tables[name]) for name, _ in pieces)
        tables = np.zeros((len(pieces), width), np.int32)
        for owner, (name, _) in enumerate(pieces):
            tables[owner, : len(self.tables[name])] = self.tables[name]
        wanted = range(len(tokens)) if logit_rows is None else logit_rows
        fields = [np.array(list(column), np.int32) for column in (tokens, positions, slots, owners, wanted)]
        return self.model(Batch(*fields[:4], block_tables=tables, logit_rows=fields[4]), self.cache)


def all_logits(
    model: Any, ops: Any, ids: list[int], chunks: list[int] | None = None, **cache: Any
) -> np.ndarray:
    """float32 [positions, vocabulary] of one sequence, alone, in chunks of these sizes (the last one
    repeats)."""
    runner = Runner(model, ops, **cache)
    sizes, start, out = list(chunks or [len(ids)]), 0, []
    while start < len(ids):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        out.append(runner.step([("only", ids[start : start + size])]))
        start += size
    return np.concatenate(out)
