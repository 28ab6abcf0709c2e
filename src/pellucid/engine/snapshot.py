"""Keys and values of held sequences, out of the cache and back in: whole blocks, as bytes, of any cache layout."""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.types import Array, Bytes

if TYPE_CHECKING:
    from pellucid.engine.engine import Engine
    from pellucid.engine.held import Held


class Snapshot(NamedTuple):
    """tables: for each sequence the rows of `arrays` that are its blocks, in order of position; num_computed: the
    positions that they hold. arrays: one for each tensor of the cache, uint8 [blocks, bytes of one block]."""

    tables: list[list[int]]
    num_computed: list[int]
    arrays: list[Bytes]


def take_snapshot(engine: Engine, held: Seq[Held]) -> Snapshot:
    """A copy. A block that several share is there once; positions that none of them has computed are zero, for what
    lies there is somebody else's. UsageError: one is closed, or being evaluated."""
    rows: dict[int, int] = {}
    filled: dict[int, int] = {}  # positions that are computed in each row
    tables = []
    size = engine.pool.block_size
    for each in held:
        engine.held.check(each.sequence)
        sequence = each.sequence
        blocks = sequence.block_table[: engine.pool.blocks_for(sequence.num_computed)]
        table = [rows.setdefault(block, len(rows)) for block in blocks]
        for index, row in enumerate(table):
            filled[row] = max(filled.get(row, 0), min(size, sequence.num_computed - index * size))
        tables.append(table)
    ids = np.array(list(rows), np.int64)
    copies = [tensor[ids] for tensor in by_block(engine.cache)]
    for row, count in filled.items():
        if count < size:
            engine.cache.clear_from(copies, row, count)
    return Snapshot(tables, [each.num_computed for each in held], [as_bytes(copy) for copy in copies])


def take_cached(engine: Engine, held: Held) -> None:
    """Gives a new sequence what the prefix cache has of it, and computes or moves nothing."""
    sequence = held.sequence
    engine.held.check(sequence)
    engine.pool.match(sequence)
    sequence.num_reused = sequence.num_computed
    if sequence.block_table:
        engine.scheduler.park(sequence)


def put_back(engine: Engine, held: Held, table: Seq[int], num_computed: int, arrays: Seq[Bytes]) -> None:
    """Gives a new sequence its computed positions: shared where the prefix cache has them, else copied. Where there
    is no room even after parked sequences gave theirs, it has what the cache had, and the rest is computed later."""
    sequence, pool = held.sequence, engine.pool
    pool.match(sequence)
    done = sequence.num_computed
    while not (room := pool.reserve(sequence, max(done, num_computed))) and engine.scheduler.reclaim():
        pass
    copies = pool.take_copies()
    if copies:
        engine.cache.copy_blocks(copies)
    if room and num_computed > done:
        tensors = by_block(engine.cache)
        for index in range(done // pool.block_size, pool.blocks_for(num_computed)):
            for tensor, rows in zip(tensors, arrays, strict=True):
                block = tensor[sequence.block_table[index]]
                block[...] = rows[table[index]].view(block.dtype).reshape(block.shape)
        sequence.num_computed = num_computed
        pool.commit(sequence)
    sequence.num_reused = sequence.num_computed
    engine.scheduler.park(sequence)


def block_bytes(cache: Any) -> list[int]:
    """Bytes of one block in each of the cache's tensors."""
    return [tensor[:1].nbytes for tensor in by_block(cache)]


def by_block(cache: Any) -> list[Array]:
    """Views of all tensors, [blocks, ...]."""
    tensors: list[Array] = [*cache.keys, *cache.values]
    return [
        tensor if len(tensor) == cache.num_blocks else tensor.reshape(cache.num_blocks, -1, *tensor.shape[1:])
        for tensor in tensors
    ]


def as_bytes(blocks: Array) -> Bytes:
    """uint8 [blocks, bytes of one]"""
    size = math.prod(blocks.shape[1:])
    return np.ascontiguousarray(blocks).reshape(len(blocks), size).view(np.uint8)
