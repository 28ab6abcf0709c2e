"""The operations in plain NumPy: slow, readable, and what the native kernels are tested against.

Values between operations are float32, as everywhere; inside one, sums are float64 and rounded once. A row's
bits are a function of that row alone: matrices are multiplied row by row, because a product of many rows at
once may sum in another order than a product of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import UsageError
from pellucid.ops.base import KV_FORMATS
from pellucid.types import Array, Batch, Float32, Int32, LayerSpec
from pellucid.weights.tensor import Tensor

Float64 = NDArray[np.float64]

RUN: Final = (
    256  # positions: attention sums within runs [0, 256), [256, 512) ... and merges them in this order
)
ACTIVATION_BLOCK: Final = 32  # inputs that share one scale when x is rounded to int8
KV_STEPS: Final = 8191  # kv_format i16: integers within +-8191 for keys and values, +-4095 for queries
QUERY_STEPS: Final = 4095
LEAST_ROUNDED: Final = np.float32(1e-30)  # rows below it become zeros


@dataclass(frozen=True)
class ReferenceMatrix:
    values: Float64  # [outputs, inputs], the dequantised weight
    bias: Float32 | None  # [outputs]
    rounding: Callable[[Float32], Float64] | None  # of x: to int8 where the weight is quantised

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)"""
        return self.values.shape[0], self.values.shape[1]


@dataclass(frozen=True)
class RopeTable:
    inv_freq: Float32  # [rotary / 2]
    max_positions: int
    scale: float


class ReferenceCache:
    """K and V of all layers, [slots, kv_heads, head_dim] each, where slot = block_id * block_size + offset:
    float16 for f16, else float32. The values are rounded to kv_format; bf16 and q8_0 save no memory here."""

    def __init__(self, specs: list[LayerSpec], num_blocks: int, block_size: int, kv_format: str) -> None:
        if kv_format not in KV_FORMATS:
            raise UsageError(f"kv_format: expected one of {', '.join(KV_FORMATS)}, found {kv_format!r}")
        self.specs = specs
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.kv_format = kv_format
        slots = num_blocks * block_size
        kind = np.float16 if kv_format == "f16" else np.float32
        self.keys = [np.zeros((slots, s.num_kv_heads, s.head_dim), kind) for s in specs]
        self.values = [np.zeros((slots, s.num_kv_heads, s.head_dim), kind) for s in specs]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.keys + self.values)

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy whole blocks, all layers: (source block id, destination block id), one pair after the
        other."""
        for source, destination in pairs:
            a, b = source * self.block_size, destination * self.block_size
            for tensor in self.keys + self.values:
                tensor[b : b + self.block_size] = tensor[a : a + self.block_size]

    def clear_from(self, copies: Sequence[Array], row: int, first: int) -> None:
        """Zero the positions of a block from `first` on. copies: [rows, block_size, ...]."""
        for copy in copies:
            copy[row, first:] = 0


class ReferenceOps:
    """See `ops/base.py` for shapes and meanings. bf16_activations: matrices in BF16 multiply x rounded to bfloat16."""

    name = "reference"

    def __init__(self, bf16_activations: bool = False) -> None:
        self.bf16_activations = bf16_activations
        self.num_bf16_products = 0

    # --- at load time ---------------------------------------------------------------------------------
    def matrix(self, weight: Tensor, bias: Float32 | None = None) -> ReferenceMatrix:
        values = weight.dequantize()
        if not weight.format.is_float:
            return ReferenceMatrix(values.astype(np.float64), bias, round_to_int8)
        if self.bf16_activations and weight.format.label == "BF16":
            self.num_bf16_products += 1
            return ReferenceMatrix(round_to_bf16(values), bias, round_to_bf16)
        return ReferenceMatrix(values.astype(np.float64), bias, None)

    def finish_loading(self) -> None:
        pass

    def head(self, weight: Tensor) -> ReferenceMatrix:
        return self.matrix(weight)

    def embedding(self, weight: Tensor) -> Tensor:
        return weight

    def rope_table(self, inv_freq: Float32, max_positions: int, scale: float = 1.0) -> RopeTable:
        return RopeTable(np.asarray(inv_freq, np.float32), max_positions, scale)

    def kv_cache(
        self, specs: list[LayerSpec], num_blocks: int, block_size: int, kv_format: str
    ) -> ReferenceCache:
        return ReferenceCache(specs, num_blocks, block_size, kv_format)

    def replaying(self, model: Any) -> Any:
        return model

    # --- in a forward pass ----------------------------------------------------------------------------
    def embed(self, table: Tensor, token_ids: Int32, scale: float = 1.0) -> Float32:
        out = np.empty((len(token_ids), table.shape[1]), np.float32)
        for row, token in enumerate(token_ids.tolist()):
            if not 0 <= token < table.shape[0]:
                raise UsageError(f"token id {token}: expected 0 to {table.shape[0] - 1}")
            out[row] = table.rows(token, token + 1).dequantize()[0]
        return np.multiply(out, np.float32(scale), dtype=np.float32)

    def linear(self, x: Float32, weight: ReferenceMatrix) -> Float32:
        rounded = x.astype(np.float64) if weight.rounding is None else weight.rounding(x)
        out = np.empty((len(x), len(weight.values)), np.float32)
        for row in range(len(x)):
            y = weight.values @ rounded[row]
            out[row] = y if weight.bias is None else y + weight.bias
        return out

    def logits(self, x: Float32, head: ReferenceMatrix, batch: Batch) -> Float32:
        return self.linear(x if batch.head_rows is None else x[batch.head_rows], head)

    def linears(self, x: Float32, *weights: ReferenceMatrix) -> tuple[Float32, ...]:
        return tuple(self.linear(x, weight) for weight in weights)

    def rms_norm(self, x: Float32, weight: Float32, eps: float) -> Float32:
        groups = x.astype(np.float64).reshape(-1, len(weight))
        mean_square = (groups * groups).mean(axis=1, keepdims=True)
        out: Float64 = groups / np.sqrt(mean_square + eps) * weight
        return out.astype(np.float32).reshape(x.shape)

    def layer_norm(self, x: Float32, weight: Float32, bias: Float32, eps: float) -> Float32:
        centred = x.astype(np.float64)
        centred -= centred.mean(axis=1, keepdims=True)
        variance = (centred * centred).mean(axis=1, keepdims=True)
        out: Float64 = centred / np.sqrt(variance + eps) * weight + bias
        return out.astype(np.float32)

    def rope(
        self, x: Float32, positions: Int32, table: RopeTable, head_dim: int, interleaved: bool = False
    ) -> Float32:
        angle = positions.astype(np.float32)[:, None] * table.inv_freq  # float32, like the models' authors
        cos = (np.cos(angle.astype(np.float64)) * table.scale).astype(np.float32)[:, None, :]
        sin = (np.sin(angle.astype(np.float64)) * table.scale).astype(np.float32)[:, None, :]
        half = len(table.inv_freq)
        out = x.reshape(len(x), -1, head_dim).copy()
        first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
        second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
        a, b = out[:, :, first].astype(np.float64), out[:, :, second].astype(np.float64)
        out[:, :, first] = a * cos - b * sin
        out[:, :, second] = b * cos + a * sin
        return out.reshape(x.shape)

    # Weights stay as they are: i16 rounds them in the kernels, to 1/16383 of the largest of 64.
    def attention(
        self,
        q: Float32,
        k: Float32,
        v: Float32,
        cache: ReferenceCache,
        layer: int,
        batch: Batch,
        scale: float,
    ) -> Float32:
        spec = cache.specs[layer]
        keys, values = cache.keys[layer], cache.values[layer]
        shape = (len(q), spec.num_kv_heads, spec.head_dim)
        keys[batch.slots] = round_to_kv_format(k.reshape(shape), cache.kv_format)
        values[batch.slots] = round_to_kv_format(v.reshape(shape), cache.kv_format)
        grouped = q.reshape(
            len(q), spec.num_kv_heads, -1, spec.head_dim
        )  # heads that share one key head together
        queries = round_query(q.reshape(-1, spec.head_dim), cache.kv_format).reshape(grouped.shape)
        out = np.empty_like(grouped)
        for row in range(len(q)):
            position = int(batch.positions[row])
            first = 0 if spec.window is None else max(0, position - spec.window + 1)
            visible = np.arange(first, position + 1)
            blocks = batch.block_tables[batch.sequence_ids[row]]
            slots = blocks[visible // cache.block_size] * cache.block_size + visible % cache.block_size
            for head in range(spec.num_kv_heads):
                out[row, head] = attend(
                    queries[row, head], keys[slots, head], values[slots, head], first, scale
                )
        return out.reshape(q.shape)

    def glu(self, gate: Float32, up: Float32, activation: str) -> Float32:
        return self.activation(gate, activation) * up

    def gated_mlp(self, x: Float32, gate: Any, up: Any, down: Any, activation: str) -> Float32:
        gates, ups = self.linears(x, gate, up)
        return self.linear(self.glu(gates, ups, activation), down)

    def activation(self, x: Float32, activation: str) -> Float32:
        return ACTIVATIONS[activation](x.astype(np.float64)).astype(np.float32)

    def add(self, x: Float32, y: Float32) -> Float32:
        return x + y

    def rows(self, x: Float32, index: Int32) -> Float32:
        return x[index]


def round_to_int8(x: Float32) -> Float64:
    """x [rows, inputs] as the quantised kernels see it: in each block of 32 inputs q * scale, where scale is
    max|x| / 127 and q the nearest integer to x * (127 / max|x|), ties to even, all of it in float32."""
    rows, inputs = x.shape
    num_blocks = -(-inputs // ACTIVATION_BLOCK)
    padded = np.zeros((rows, num_blocks * ACTIVATION_BLOCK), np.float32)
    padded[:, :inputs] = x
    blocks = padded.reshape(rows, num_blocks, ACTIVATION_BLOCK)
    amax = np.abs(blocks).max(axis=2, keepdims=True)
    inverse = np.divide(np.float32(127), amax, out=np.zeros_like(amax), where=amax > 0)
    quants = np.clip(np.rint(blocks * inverse), -127, 127)
    rounded: Float64 = quants.astype(np.float64) * (amax / np.float32(127))
    return rounded.reshape(padded.shape)[:, :inputs]


def round_to_bf16(x: Float32) -> Float64:
    """x as the bf16 kernels see it: to nearest, ties to even; what is below 2^-56 then is 0 (native/quant/packed.h)."""
    rounded = round_to_kv_format(x, "bf16").astype(np.float64)
    return np.where(np.abs(rounded) < 2.0**-56, 0.0, rounded)


def round_to_steps(x: Float32, steps: int) -> Float32:
    """x [..., head_dim] as q * scale: scale is max|x| / steps, q the nearest integer to x * (steps / max|x|), ties to
    even, all of it in float32."""
    largest = np.abs(x).max(axis=-1, keepdims=True)
    inverse = np.divide(
        np.float32(steps), largest, out=np.zeros_like(largest), where=largest >= LEAST_ROUNDED
    )
    return np.asarray(np.rint(x * inverse) * (largest / np.float32(steps)), np.float32)


def round_to_kv_format(x: Float32, kv_format: str) -> Float32:
    """x [..., head_dim] as the cache holds it.

    q8_0: in each block of 32 values q * scale, where scale is max|x| / 127 rounded to float16 and q the nearest
    integer to x * (1 / scale), ties to even, at most 127. i16: `round_to_steps` of the whole row.
    """
    if kv_format == "i16":
        return round_to_steps(x, KV_STEPS)
    if kv_format == "f16":
        with np.errstate(over="ignore"):  # beyond 65504 it is infinity
            return x.astype(np.float16).astype(np.float32)
    if kv_format == "bf16":
        bits = np.ascontiguousarray(x).view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(x), x, rounded.view(np.float32))
    if kv_format == "f32":
        return x
    size = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-size // 32) * 32), np.float32)
    padded[..., :size] = x
    blocks = padded.reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    scale = round_to_kv_format(largest / np.float32(127), "f16")
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    out = np.clip(np.rint(blocks * inverse), -127, 127) * scale
    return np.asarray(out.reshape(padded.shape)[..., :size], np.float32)


def round_query(q: Float32, kv_format: str) -> Float64:
    """q [rows, head_dim] as the products with keys of this format take it."""
    if kv_format == "q8_0":
        return round_to_int8(q)
    return (round_to_steps(q, QUERY_STEPS) if kv_format == "i16" else q).astype(np.float64)


def attend(
    q: NDArray[np.floating],
    keys: NDArray[np.floating],
    values: NDArray[np.floating],
    first: int,
    scale: float,
) -> Float64:
    """Softmax attention of some heads over the keys at positions first, first + 1, ...

    q: [heads, head_dim]; keys, values: [positions, head_dim] -> [heads, head_dim]. Runs of absolute
    positions are summed apart and merged in ascending order (Milakov and Gimelshein 2018, arXiv
    1805.02867).
    """
    largest = np.full((len(q), 1), -np.inf)
    total = np.zeros((len(q), 1))
    output = np.zeros(q.shape)
    start = 0
    while start < len(keys):
        stop = min(len(keys), start + RUN - (first + start) % RUN)
        scores = scale * (q.astype(np.float64) @ keys[start:stop].astype(np.float64).T)
        new_largest = np.maximum(largest, scores.max(axis=1, keepdims=True))
        weights = np.exp(scores - new_largest)
        shrink = np.exp(largest - new_largest)
        total = total * shrink + weights.sum(axis=1, keepdims=True)
        output = output * shrink + weights @ values[start:stop].astype(np.float64)
        largest, start = new_largest, stop
    return output / total


def _silu(x: Float64) -> Float64:
    out: Float64 = x / (1.0 + np.exp(-np.maximum(x, -700.0)))  # exp stays finite; x / e^700 is 0 in float32
    return out


def _gelu_tanh(x: Float64) -> Float64:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def _gelu(x: Float64) -> Float64:
    erf = np.array([math.erf(value / math.sqrt(2.0)) for value in x.ravel()], np.float64)
    return 0.5 * x * (1.0 + erf.reshape(x.shape))


# Hendrycks and Gimpel 2016, arXiv 1606.08415
ACTIVATIONS: Final = {"silu": _silu, "gelu_tanh": _gelu_tanh, "gelu": _gelu}
