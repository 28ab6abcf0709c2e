"""The native KV cache: what it holds in each format, what it costs, and prefixes that sequences share."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import _native
from pellucid.capacity import KV_FORMATS, kv_bytes_per_token
from pellucid.ops import base
from pellucid.ops.cpu import CpuOps, KVCache
from pellucid.ops.reference import round_to_kv_format
from pellucid.types import Array, Batch, Float32, Int32, LayerSpec

ISAS = _native.instruction_sets()
BLOCK = 32


def batch(positions: list[int], owners: list[int], tables: Int32) -> Batch:
    p, ids = np.array(positions, np.int32), np.array(owners, np.int32)
    slots = (tables[ids, p // BLOCK] * BLOCK + p % BLOCK).astype(np.int32)
    return Batch(p * 0, p, slots, ids, tables, p[:0])


def held(cache: KVCache, layer: int, slot: int, head: int) -> tuple[Float32, Float32]:
    """K and V of one slot and head as float32, read from the documented bytes."""
    block, inside = divmod(slot, BLOCK)
    size = cache.specs[layer].head_dim
    keys, values = cache.keys[layer][block, head], cache.values[layer][block, head]
    if cache.kv_format == "q8_0":
        return _held_q8(keys[inside // 16], values[inside // 16], inside % 16, size)
    if cache.kv_format == "i16":
        return _held_i16(keys[inside // 16], values[inside // 16], inside % 16, size)
    k, v = keys[inside // 16, :, inside % 16], values[inside, :size]
    if cache.kv_format == "f16":
        return k.view(np.float16).astype(np.float32), v.view(np.float16).astype(np.float32)
    if cache.kv_format == "bf16":
        return tuple((part.astype(np.uint32) << 16).view(np.float32) for part in (k, v))  # type: ignore[return-value]
    return k, v


def _held_q8(keys: Array, values: Array, lane: int, size: int) -> tuple[Float32, Float32]:
    blocks = len(keys)
    k = np.zeros((blocks, 32), np.float32)
    for b in range(blocks):
        scale = keys[b, :32].view(np.float16)[lane].astype(np.float32)
        k[b] = (keys[b, 32:].reshape(8, 16, 4)[:, lane].ravel().astype(np.float32) - 128) * scale
    scales = values[: blocks * 32].view(np.float16).reshape(blocks, 16)[:, lane].astype(np.float32)
    v = values[blocks * 32 :].view(np.int8).reshape(16, blocks, 32)[lane].astype(np.float32) * scales[:, None]
    return k.ravel()[:size], v.ravel()[:size]


def _held_i16(keys: Array, values: Array, lane: int, size: int) -> tuple[Float32, Float32]:
    scales = [part[:64].view(np.float32)[lane] for part in (keys, values)]
    k = keys[64:].view(np.int16).reshape(-1, 16, 2)[:, lane].ravel()[:size]
    v = values[64:].view(np.int16).reshape(8, -1, 2)[lane // 2, :size, lane % 2]
    return k.astype(np.float32) * scales[0], v.astype(np.float32) * scales[1]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("head_dim", [1, 20, 64, 80])
def test_the_cache_holds_the_rounded_values(isa: str, kv_format: str, head_dim: int) -> None:
    """Bit for bit what the NumPy twin's rounding gives: large, tiny and zero blocks, and ties."""
    rng = np.random.default_rng(1)
    ops = CpuOps(2, isa)
    specs = [LayerSpec(1, 16), LayerSpec(2, head_dim)]
    cache = ops.kv_cache(specs, 3, BLOCK, kv_format)
    tables = np.array([[2, 0, 1]], np.int32)
    n = 70
    k, v = (rng.normal(size=(n, 2, head_dim)).astype(np.float32) for _ in range(2))
    k[1], k[2], v[3] = 0, k[2] * 1e-9, v[3] * 1e3
    k[4] = np.round(k[4] * 2) * np.float32(0.5 + 2**-9)  # ties of bfloat16
    ops.attention(k.reshape(n, -1), k.reshape(n, -1), v.reshape(n, -1), cache, 1,
                  batch(list(range(n)), [0] * n, tables), 1.0)  # fmt: skip
    wanted = round_to_kv_format(k, kv_format), round_to_kv_format(v, kv_format)
    for position in range(n):
        slot = int(tables[0, position // BLOCK]) * BLOCK + position % BLOCK
        for head in range(2):
            for got, want in zip(held(cache, 1, slot, head), wanted, strict=True):
                np.testing.assert_array_equal(got, want[position, head])


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_its_memory_is_what_the_capacity_says(kv_format: str) -> None:
    specs = [LayerSpec(3, 64), LayerSpec(1, 256, 512), LayerSpec(2, 48)]
    cache = CpuOps(1).kv_cache(specs, 5, BLOCK, kv_format)
    assert base.KV_FORMATS == KV_FORMATS
    assert cache.num_bytes == 5 * BLOCK * kv_bytes_per_token(specs, kv_format)


def test_a_copied_block_is_the_same_in_all_layers() -> None:
    cache = CpuOps(1).kv_cache([LayerSpec(3, 20), LayerSpec(1, 16)], 4, BLOCK, "q8_0")
    for tensor in cache.keys + cache.values:
        tensor[...] = np.random.default_rng(2).integers(0, 256, tensor.shape)
    before = [tensor.copy() for tensor in cache.keys + cache.values]
    cache.copy_blocks([(3, 1)])
    for tensor, old in zip(cache.keys + cache.values, before, strict=True):
        assert np.array_equal(tensor[1], old[3])
        assert np.array_equal(tensor[[0, 2, 3]], old[[0, 2, 3]])


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_what_is_cleared_is_as_if_never_written(kv_format: str) -> None:
    """From any position of a block on, in its first 16 or later."""
    ops, specs = CpuOps(1), [LayerSpec(2, 20), LayerSpec(1, 64)]
    rng = np.random.default_rng(4)
    rows = [rng.normal(size=(2, BLOCK, s.num_kv_heads * s.head_dim)).astype(np.float32) for s in specs]

    def written(count: int) -> KVCache:
        cache = ops.kv_cache(specs, 2, BLOCK, kv_format)
        one = batch(list(range(count)), [0] * count, np.array([[1]], np.int32))
        for layer, (k, v) in enumerate(rows):
            if count:
                ops.attention(k[:count], k[:count], v[:count], cache, layer, one, 0.1)
        return cache

    full = written(BLOCK)
    for first in range(BLOCK):
        copies = [tensor[[0, 1]] for tensor in full.keys + full.values]
        full.clear_from(copies, 1, first)
        part = written(first)
        for cleared, want in zip(copies, part.keys + part.values, strict=True):
            assert np.array_equal(cleared[1], want[1]), first


SHAPES = [(9, 3, 64, None), (4, 1, 32, 300), (50, 1, 8, None), (2, 2, 20, None)]


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "window"), SHAPES)
def test_sequences_with_a_shared_prefix_get_what_they_get_alone(
    kv_format: str, heads: int, kv_heads: int, head_dim: int, window: int | None
) -> None:
    """Twelve sequences share 0, 40, 256, 512 or 600 positions with the first; one or three rows each, beside a
    prompt's chunk; all instruction sets, 1 to 3 threads: the bits are those of each row alone."""
    rng = np.random.default_rng(3)
    lengths = [700, 700, 650, 257, 20, 600, 513, 800, 1000, 256, 530, 700]
    shared = [0, 600, 512, 256, 0, 40, 512, 512, 256, 255, 512, 0]
    width, count = 33, 0
    tables = np.zeros((len(lengths), width), np.int32)
    for i, (length, common) in enumerate(zip(lengths, shared, strict=True)):
        own = -(-length // BLOCK) + 1 - common // BLOCK
        tables[i, : common // BLOCK] = tables[0, : common // BLOCK]
        tables[i, common // BLOCK : common // BLOCK + own] = np.arange(count, count + own)
        count += own
    kv_rows = {i: 3 if i % 4 == 1 else 70 if i == 7 else 1 for i in range(len(lengths))}
    pieces = [(i, list(range(lengths[i] - n, lengths[i]))) for i, n in kv_rows.items()]
    positions = [p for _, part in pieces for p in part]
    owners = [i for i, part in pieces for _ in part]
    q, k, v = (
        rng.normal(size=(len(positions), h * head_dim)).astype(np.float32)
        for h in (heads, kv_heads, kv_heads)
    )
    history = [rng.normal(size=(count * BLOCK, kv_heads * head_dim)).astype(np.float32) for _ in range(2)]

    def ready(ops: CpuOps) -> KVCache:
        """Every slot of the cache is filled, as if by earlier passes."""
        cache: KVCache = ops.kv_cache([LayerSpec(kv_heads, head_dim, window)], count, BLOCK, kv_format)
        slots = np.arange(count * BLOCK, dtype=np.int32)
        whole = Batch(slots, slots * 0, slots, slots * 0, np.zeros((1, 1), np.int32), slots[:0])
        ops.attention(np.zeros((len(slots), heads * head_dim), np.float32), *history, cache, 0, whole, 1.0)
        return cache

    ops = CpuOps(1, "scalar")
    cache = ready(ops)
    want, row = [], 0
    for i, part in pieces:
        for p in part:
            one = slice(row, row + 1)
            want.append(ops.attention(q[one], k[one], v[one], cache, 0, batch([p], [i], tables), 0.3))
            row += 1
    for isa in ISAS:
        for threads in (1, 2, 3):
            other = CpuOps(threads, isa)
            got = other.attention(q, k, v, ready(other), 0, batch(positions, owners, tables), 0.3)
            np.testing.assert_array_equal(got.view(np.uint32), np.concatenate(want).view(np.uint32))


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_an_infinite_value_harms_only_who_sees_it(kv_format: str) -> None:
    """Rows before it in the same pass, and rows whose window has passed it, are as without it."""
    rng = np.random.default_rng(5)
    n, window = 130, 40
    q, k, v = (rng.normal(size=(n, 32)).astype(np.float32) for _ in range(3))
    tables = np.arange(5, dtype=np.int32)[None]
    ops, outputs = CpuOps(2), []
    for bad in (False, True):
        if bad:
            v[61, 3], k[61, 5] = np.inf, np.nan
        cache = ops.kv_cache([LayerSpec(1, 32, window)], 5, BLOCK, kv_format)
        outputs.append(ops.attention(q, k, v, cache, 0, batch(list(range(n)), [0] * n, tables), 0.3))
    unharmed = [*range(61), *range(61 + window, n)]
    assert np.array_equal(outputs[0][unharmed], outputs[1][unharmed])
    assert not np.isfinite(outputs[1][61 : 61 + window]).all(axis=1).any()
