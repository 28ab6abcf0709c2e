"""The operations in native code (native/kernels), on a pool of threads. See `ops/base.py` for meanings.

One output is always computed whole by one thread, in one order: the bits do not depend on the number of threads,
nor on the number of rows. All instruction sets give the same bits too.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pellucid import _native
from pellucid.errors import UsageError
from pellucid.ops.base import KV_FORMATS
from pellucid.ops.screening import SPLIT_FORMATS, Screening, peaked_rows, screened_rows
from pellucid.types import Array, Batch, Float32, Int32, LayerSpec, Logits
from pellucid.weights.tensor import Tensor

ACTIVATIONS: Final = {"silu": 0, "gelu_tanh": 1, "gelu": 2}
ROPE_ROWS: Final = 2048  # of a rotation table, to begin with
ROPE_CHUNK: Final = 256  # positions that are added to a rotation table at a time
EMBED_ROWS: Final = 64  # read from the file before its pages are given back
CACHE_LINE: Final = 64
PACK_BYTES: Final = 2 << 20  # of the file, packed at a time
PACK_ROWS: Final = 32  # rows are packed in multiples of it
LEAST_TEMPORARY: Final = 1 << 14  # values; smaller arrays come from NumPy
TEMPORARY_BYTES: Final = 32 << 20  # kept for the next pass, at most
I16_SCALES: Final = 64  # bytes: one float32 for each of 16 positions
KV_TYPES: Final[dict[str, type[np.generic]]] = {  # 16-bit floats as their bits
    "f32": np.float32, "f16": np.uint16, "bf16": np.uint16, "q8_0": np.uint8, "i16": np.uint8,
}  # fmt: skip


@dataclass
class Embedding:
    """A table whose rows are read from the file when they are asked for. Each row brings 64 KiB of the file into this
    process's memory, or 2 MiB where the system keeps files in large pages: all goes back after EMBED_ROWS rows."""

    weight: Tensor
    num_read: int = 0  # since then

    def note(self, num_rows: int) -> None:
        self.num_read += num_rows
        if self.num_read >= EMBED_ROWS:
            self.weight.release()
            self.num_read = 0


class RopeTable:
    """cos and sin of position * inv_freq, float32 [positions so far, rotary / 2], computed when first needed.

    The angle is the float32 product, as in transformers; its cosine is taken in float64 and rounded. The arrays are
    replaced by larger ones as the positions grow; `version` counts that.
    """

    def __init__(self, inv_freq: Float32, max_positions: int, scale: float) -> None:
        self._inv_freq = np.ascontiguousarray(inv_freq, np.float32)
        self._scale = scale
        self._max_positions = max_positions
        self._filled = 0
        self.version = 0
        self.cosines = self.sines = np.empty((0, len(inv_freq)), np.float32)

    def cover(self, positions: Int32) -> None:
        """Fill the rows of these positions."""
        self.cover_up_to(_native.largest(positions))

    def cover_up_to(self, position: int) -> None:
        needed = min(position + 1, self._max_positions)
        if needed > len(self.cosines):
            self._grow(min(max(needed, 2 * len(self.cosines), ROPE_ROWS), self._max_positions))
        while self._filled < needed:
            rows = slice(self._filled, min(self._filled + ROPE_CHUNK, len(self.cosines)))
            angles = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] * self._inv_freq
            exact = angles.astype(np.float64)
            self.cosines[rows] = np.cos(exact) * self._scale
            self.sines[rows] = np.sin(exact) * self._scale
            self._filled = rows.stop

    def _grow(self, num_rows: int) -> None:
        old = self.cosines, self.sines
        self.cosines, self.sines = (np.empty((num_rows, len(self._inv_freq)), np.float32) for _ in old)
        self.cosines[: self._filled], self.sines[: self._filled] = (part[: self._filled] for part in old)
        self.version += 1


def untouched(num_bytes: int) -> NDArray[np.uint8]:
    """Uninitialised bytes on huge pages where the system has them; it gives pages as they are written."""
    memory = mmap.mmap(-1, max(num_bytes, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them has small pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8, num_bytes)


class KVCache:
    """K and V of all layers. One block's positions of all layers lie together, so that what is in use fills
    whole pages; `keys[layer]` and `values[layer]` are views of that memory, [block, kv_head, ...]:

    f32, f16, bf16: K [..., position / 16, head_dim, 16], V [..., position, head_dim padded to 16].
    q8_0: blocks of 32 values along head_dim (the last one padded with zeros), each with a float16 scale:
    K [..., position / 16, block, 544], V [..., position / 16, block * 544]; bytes as in native/kernels/attention.h.
    i16: integers within +-8191 and one float32 scale for each position and head: K [..., position / 16, 64 bytes of
    scales and int16 [head_dim / 2, 16, 2]], V [..., position / 16, 64 bytes of scales and int16 [8, head_dim padded
    to 16, 2]].
    UsageError: an unknown format or block size.
    """

    def __init__(self, specs: list[LayerSpec], num_blocks: int, block_size: int, kv_format: str) -> None:
        if kv_format not in KV_TYPES:
            raise UsageError(f"kv_format: expected one of {', '.join(KV_TYPES)}, got {kv_format!r}")
        if block_size < 16 or 256 % block_size:
            raise UsageError(f"block_size: expected 16, 32, 64, 128 or 256, got {block_size}")
        self.specs = specs
        self.num_blocks, self.block_size, self.kv_format = num_blocks, block_size, kv_format
        self.format_number = KV_FORMATS.index(kv_format)
        kind = np.dtype(KV_TYPES[kv_format])
        shapes = [shape for spec in specs for shape in _shapes(spec, block_size, kv_format)]
        sizes = [-(-math.prod(shape) * kind.itemsize // CACHE_LINE) * CACHE_LINE for shape in shapes]
        self.blocks = untouched(num_blocks * sum(sizes)).reshape(num_blocks, sum(sizes))
        tensors: list[Array] = []
        start = 0
        for shape, size in zip(shapes, sizes, strict=True):
            part = self.blocks[:, start : start + math.prod(shape) * kind.itemsize]
            tensors.append(part.view(kind).reshape(num_blocks, *shape))
            start += size
        self.keys, self.values = tensors[::2], tensors[1::2]

    @property
    def num_bytes(self) -> int:
        return self.blocks.nbytes

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy whole blocks, all layers: (source, destination), one pair after the other."""
        for source, destination in pairs:
            self.blocks[destination] = self.blocks[source]

    def clear_from(self, copies: Sequence[Array], row: int, first: int) -> None:
        """Zero the positions of a block from `first` on. copies: all keys, then all values, [rows, ...]."""
        group, lane = divmod(first, 16)
        half = len(copies) // 2
        if self.kv_format == "i16":
            for keys, values in zip(copies[:half], copies[half:], strict=True):
                heads = keys.shape[1]
                for part in (keys, values):
                    part[row, :, group, 4 * lane : I16_SCALES] = 0
                    part[row, :, group + 1 :] = 0
                keys[row, :, group, I16_SCALES:].reshape(heads, -1, 16, 4)[:, :, lane:] = 0
                pairs = values[row, :, group, I16_SCALES:].reshape(
                    heads, 8, -1, 2, 2
                )  # of positions, 2 bytes each
                pairs[:, (lane + 1) // 2 :] = 0
                pairs[:, lane // 2, :, lane % 2 :] = 0
            return
        if self.kv_format != "q8_0":
            for keys, values in zip(copies[:half], copies[half:], strict=True):
                keys[row, :, group, :, lane:] = 0
                keys[row, :, group + 1 :] = 0
                values[row, :, first:] = 0
            return
        for keys, values in zip(copies[:half], copies[half:], strict=True):
            heads, blocks = keys.shape[1], keys.shape[3]
            part = keys[row, :, group]  # [heads, blocks, 16 scales and values [8][16][4]]
            part[..., 2 * lane : 32] = 0
            part[..., 32:].reshape(heads, blocks, 8, 16, 4)[..., lane:, :] = 0
            keys[row, :, group + 1 :] = 0
            part = values[row, :, group]  # [heads, scales [blocks][16] and values [16][blocks * 32]]
            part[:, : blocks * 32].reshape(heads, blocks, 32)[..., 2 * lane :] = 0
            part[:, blocks * 32 :].reshape(heads, 16, blocks * 32)[:, lane:] = 0
            values[row, :, group + 1 :] = 0


def _shapes(spec: LayerSpec, block_size: int, kv_format: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """K and V of one block of one layer."""
    heads, groups = spec.num_kv_heads, block_size // 16
    if kv_format == "q8_0":
        blocks = -(-spec.head_dim // 32)
        return (heads, groups, blocks, 544), (heads, groups, blocks * 544)
    if kv_format == "i16":
        key_bytes, value_bytes = -(-spec.head_dim // 2) * 64, -(-spec.head_dim // 16) * 512
        return (heads, groups, I16_SCALES + key_bytes), (heads, groups, I16_SCALES + value_bytes)
    return (heads, groups, spec.head_dim, 16), (heads, block_size, -(-spec.head_dim // 16) * 16)


class CpuOps:
    """See `ops/base.py`. isa: one of `_native.instruction_sets()`; None: the best that this machine has.
    bf16_activations: matrices in BF16 multiply x rounded to bfloat16 (native/kernels/bf16_pairs.cc)."""

    name = "cpu"

    def __init__(
        self,
        num_threads: int = 1,
        isa: str | None = None,
        arena: _native.Arena | None = None,
        bf16_activations: bool = False,
    ) -> None:
        self.runner = _native.Runner(num_threads, isa, arena)
        self.screening = Screening()
        self.temporaries = _native.Temporaries(TEMPORARY_BYTES)
        self.rope_tables: list[RopeTable] = []
        self.embedded: Embedding | None = None  # the table of the last `embed`
        self.matrix_shapes: list[tuple[int, int]] = []
        self.bf16_activations = bf16_activations
        self.num_bf16_products = 0

    # --- at load time ---------------------------------------------------------------------------------
    def matrix(self, weight: Tensor, bias: Float32 | None = None) -> Any:
        return self._packed(weight, bias)

    def head(self, weight: Tensor) -> Any:
        return self._packed(weight, None, split=weight.format.label in SPLIT_FORMATS)

    def _packed(self, weight: Tensor, bias: Float32 | None, split: bool = False) -> Any:
        outputs, inputs = weight.shape
        in_pairs = self.bf16_activations and weight.format.label == "BF16"
        self.num_bf16_products += in_pairs
        packed = self.runner.allocate(weight.format.label, outputs, inputs, bias, split, in_pairs)
        self.matrix_shapes.append((outputs, inputs))
        if weight.source is not None:  # later, while more is read; the file's pages are given back
            self.runner.pack_mapped(packed, weight.data)
            return packed
        step = max(1, PACK_BYTES // (weight.row_bytes * PACK_ROWS)) * PACK_ROWS
        for first in range(0, outputs, step):
            part = weight.rows(first, min(first + step, outputs))
            self.runner.pack_rows(packed, first, part.data)
        return packed

    def finish_loading(self) -> None:
        self.runner.finish_packing()

    def embedding(self, weight: Tensor) -> Embedding:
        return Embedding(weight)

    def rope_table(self, inv_freq: Float32, max_positions: int, scale: float = 1.0) -> RopeTable:
        table = RopeTable(inv_freq, max_positions, scale)
        self.rope_tables.append(table)
        return table

    def kv_cache(self, specs: list[LayerSpec], num_blocks: int, block_size: int, kv_format: str) -> KVCache:
        return KVCache(specs, num_blocks, block_size, kv_format)

    def replaying(self, model: Any) -> Any:
        from pellucid.ops.replay import Replay

        return Replay(model, self)

    def _empty(self, shape: tuple[int, ...]) -> Float32:
        """An array that a pass fills."""
        if math.prod(shape) < LEAST_TEMPORARY:
            return np.empty(shape, np.float32)
        return self.temporaries.empty(shape)

    # --- in a forward pass ----------------------------------------------------------------------------
    def embed(self, table: Embedding, token_ids: Int32, scale: float = 1.0) -> Float32:
        weight, self.embedded = table.weight, table
        out = self._empty((len(token_ids), weight.shape[1]))
        for start in range(0, len(token_ids), EMBED_ROWS):
            part = slice(start, start + EMBED_ROWS)
            self.runner.embed(
                weight.format.label, weight.data, weight.shape[0], token_ids[part], scale, out[part]
            )
            table.note(len(out[part]))
        return out

    def linear(self, x: Float32, weight: Any) -> Float32:
        out = self._empty((len(x), weight.shape[0]))
        self.runner.linear(x, [weight], [out])
        return out

    def logits(self, x: Float32, head: Any, batch: Batch) -> Logits:
        if batch.head_rows is not None:
            x = self.rows(x, batch.head_rows)
        if not batch.choice_only or not head.is_quantised or not len(x):
            return self.linear(x, head)
        if self.screening.by_halves and head.is_split:
            return screened_rows(self.runner, self.screening, x, head)
        return peaked_rows(self.runner, x, head)

    def linears(self, x: Float32, *weights: Any) -> tuple[Float32, ...]:
        out = [self._empty((len(x), weight.shape[0])) for weight in weights]
        self.runner.linear(x, weights, out)
        return tuple(out)

    def rms_norm(self, x: Float32, weight: Float32, eps: float) -> Float32:
        out = self._empty(x.shape)
        self.runner.rms_norm(x, weight, eps, out)
        return out

    def layer_norm(self, x: Float32, weight: Float32, bias: Float32, eps: float) -> Float32:
        out = self._empty(x.shape)
        self.runner.layer_norm(x, weight, bias, eps, out)
        return out

    def rope(
        self, x: Float32, positions: Int32, table: RopeTable, head_dim: int, interleaved: bool = False
    ) -> Float32:
        table.cover(positions)
        out = self._empty(x.shape)
        self.runner.rope(x, positions, table.cosines, table.sines, head_dim, interleaved, out)
        return out

    def attention(
        self, q: Float32, k: Float32, v: Float32, cache: KVCache, layer: int, batch: Batch, scale: float
    ) -> Float32:
        spec = cache.specs[layer]
        out = self._empty(q.shape)
        self.runner.attention(
            q, k, v, cache.keys[layer], cache.values[layer],
            batch.positions, batch.slots, batch.sequence_ids, batch.block_tables,
            spec.num_kv_heads, spec.head_dim, cache.block_size, spec.window or 0, scale, cache.format_number, out,
        )  # fmt: skip
        return out

    def glu(self, gate: Float32, up: Float32, activation: str) -> Float32:
        out = self._empty(gate.shape)
        self.runner.glu(gate, up, ACTIVATIONS[activation], out)
        return out

    def gated_mlp(self, x: Float32, gate: Any, up: Any, down: Any, activation: str) -> Float32:
        if len(x) == 1 or gate.in_pairs or up.in_pairs or down.in_pairs:
            gates, ups = self.linears(x, gate, up)
            return self.linear(self.glu(gates, ups, activation), down)
        out = self._empty((len(x), down.shape[0]))
        self.runner.gated_mlp(x, gate, up, down, ACTIVATIONS[activation], out)
        return out

    def activation(self, x: Float32, activation: str) -> Float32:
        out = self._empty(x.shape)
        self.runner.glu(x, None, ACTIVATIONS[activation], out)
        return out

    def add(self, x: Float32, y: Float32) -> Float32:
        out = self._empty(x.shape)
        self.runner.add(x, y, out)
        return out

    def rows(self, x: Float32, index: Int32) -> Float32:
        out = self._empty((len(index), x.shape[1]))
        self.runner.rows(x, index, out)
        return out
