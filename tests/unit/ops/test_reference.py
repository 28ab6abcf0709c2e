"""The reference operations against sums written out one number at a time."""

from __future__ import annotations

import math

import gguf
import numpy as np
import pytest

from pellucid.capacity import KV_FORMATS
from pellucid.errors import UsageError
from pellucid.ops.reference import ReferenceOps, round_to_int8
from pellucid.types import Batch, LayerSpec
from pellucid.weights.tensor import Format, Tensor

ops = ReferenceOps()
rng = np.random.default_rng(0)


def draw(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def tensor(values, name="F32"):
    kind = gguf.GGMLQuantizationType[name]
    data = values if name == "F32" else gguf.quants.quantize(values, kind)
    return Tensor("w", values.shape, Format[name], np.ascontiguousarray(data).reshape(-1).view(np.uint8))


def test_linear_of_floats():
    x, w, b = draw(3, 40), draw(5, 40), draw(5)
    found = ops.linear(x, ops.matrix(tensor(w), b))
    for i in range(3):
        for j in range(5):
            assert found[i, j] == np.float32(
                math.fsum(float(p) * float(q) for p, q in zip(x[i], w[j], strict=True)) + float(b[j])
            )


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_linear_of_quants_is_a_chain_over_blocks(name):
    """As the native kernels define it: integer dot products times the scales of weight and activation."""
    x, w = draw(2, 96), draw(3, 96)
    found = ops.linear(x, ops.matrix(tensor(w, name)))
    values = gguf.quants.dequantize(
        gguf.quants.quantize(w, gguf.GGMLQuantizationType[name]), gguf.GGMLQuantizationType[name]
    )
    for i in range(2):
        for j in range(3):
            total = 0.0
            for start in range(0, 96, 32):
                block = x[i, start : start + 32]
                amax = np.abs(block).max()
                q = np.rint(block * (np.float32(127) / amax)).astype(int)
                scale = float(np.float32(amax / np.float32(127)))
                total += (
                    sum(int(a) * float(v) for a, v in zip(q, values[j, start : start + 32], strict=True))
                    * scale
                )
            assert found[i, j] == pytest.approx(total, rel=1e-6, abs=1e-6)


def test_rounding_to_int8():
    x = np.zeros((1, 96), np.float32)
    x[0, 32:64] = np.linspace(-3, 3, 32)
    x[0, 64:96] = 1e-30
    found = round_to_int8(x)
    np.testing.assert_array_equal(found[0, :32], 0)  # a block of zeros
    assert np.abs(found[0, 32:64] - x[0, 32:64]).max() <= 3 / 254 * (1 + 1e-6)
    assert found[0, 32] == pytest.approx(-3, rel=1e-6)
    np.testing.assert_allclose(found[0, 64:], 1e-30, rtol=1e-6)
    ties = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, *[0] * 26]], np.float32)
    np.testing.assert_array_equal(round_to_int8(ties)[0, :6], [127, 0, 2, 2, 0, -2])  # to even
    assert round_to_int8(draw(0, 64)).shape == (0, 64)
    tail = draw(2, 40)  # a last block of 8
    np.testing.assert_array_equal(
        round_to_int8(tail)[:, 32:], round_to_int8(np.ascontiguousarray(tail[:, 32:]))
    )


def test_norms():
    x, w, b = draw(3, 24), draw(24), draw(24)
    rms, layer = ops.rms_norm(x, w, 1e-5), ops.layer_norm(x, w, b, 1e-5)
    for i in range(3):
        row = [float(v) for v in x[i]]
        square = math.sqrt(sum(v * v for v in row) / 24 + 1e-5)
        mean = sum(row) / 24
        deviation = math.sqrt(sum((v - mean) ** 2 for v in row) / 24 + 1e-5)
        for j in range(24):
            assert rms[i, j] == pytest.approx(row[j] / square * w[j], rel=1e-6)
            assert layer[i, j] == pytest.approx((row[j] - mean) / deviation * w[j] + b[j], rel=1e-5, abs=1e-6)
    heads = ops.rms_norm(x, w[:8], 1e-5)  # three heads of 8
    np.testing.assert_array_equal(heads[:, 8:16], ops.rms_norm(np.ascontiguousarray(x[:, 8:16]), w[:8], 1e-5))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary", [8, 6])
def test_rope_turns_complex_numbers(interleaved, rotary):
    """Each pair is a complex number times e^(i angle); dimensions past `rotary` stay."""
    inv_freq = np.array([1.0, 0.1, 0.01, 0.001][: rotary // 2], np.float32)
    x, positions = draw(4, 16), np.array([0, 1, 70, 9000], np.int32)
    found = ops.rope(x, positions, ops.rope_table(inv_freq, 10000, scale=1.25), 8, interleaved)
    for row in range(4):
        for head in range(2):
            a, b = x[row, head * 8 : head * 8 + 8], found[row, head * 8 : head * 8 + 8]
            for i in range(rotary // 2):
                first, second = (2 * i, 2 * i + 1) if interleaved else (i, i + rotary // 2)
                angle = float(np.float32(positions[row]) * inv_freq[i])
                turned = complex(a[first], a[second]) * complex(math.cos(angle), math.sin(angle)) * 1.25
                assert complex(b[first], b[second]) == pytest.approx(turned, rel=1e-5, abs=1e-6)
            np.testing.assert_array_equal(a[rotary:], b[rotary:])


def in_steps(x, steps):
    """Each row by the definition, in Python's integers."""
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape[:-1]):
        largest = np.abs(x[index]).max()
        for i, value in enumerate(x[index]):
            q = round(float(value * (np.float32(steps) / largest)))  # ties to even
            out[index][i] = float(np.float32(q) * (largest / np.float32(steps)))
    return out


def rounded(x, kv_format):
    """One value, or one block of at most 32, at a time; q8_0 by the format's definition in Python's integers."""
    if kv_format == "f16":
        return x.astype(np.float16).astype(float)
    if kv_format == "bf16":  # between the two neighbours with 8 bits, the nearer one, or the even one
        low = (x.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(float)
        high = ((x.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32).astype(float)
        even = (x.view(np.uint32) >> 16 & 1) == 0
        nearer = np.abs(x - low) < np.abs(high - x)
        return np.where(nearer | ((np.abs(x - low) == np.abs(high - x)) & even), low, high)
    if kv_format == "f32":
        return x.astype(float)
    out = np.zeros(x.shape)
    if kv_format == "i16":
        return in_steps(x, 8191)
    for index in np.ndindex(x.shape[:-1]):
        for start in range(0, x.shape[-1], 32):
            block = x[index][start : start + 32]
            scale = np.float32(np.float16(np.abs(block).max() / np.float32(127)))
            for i, value in enumerate(block):
                q = round(float(value * (np.float32(1) / scale)))  # ties to even
                out[index][start + i] = max(-127, min(127, q)) * float(scale)
    return out


@pytest.mark.parametrize("window", [None, 1, 5, 300])
@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_attention_is_softmax_over_the_window(window, kv_format):
    """270 positions, so two runs; two query heads a key head; a softmax written out in one piece."""
    n, kv_heads, group, dim = 270, 2, 2, 4
    q, k, v = draw(n, kv_heads * group * dim), draw(n, kv_heads * dim), draw(n, kv_heads * dim)
    cache = ops.kv_cache([LayerSpec(kv_heads, dim, window)], 9, 32, kv_format)
    order = rng.permutation(9).astype(np.int32)
    positions = np.arange(n, dtype=np.int32)
    slots = order[positions // 32] * 32 + positions % 32
    batch = Batch(positions, positions, slots, np.zeros(n, np.int32), order[None], positions)
    found = ops.attention(q, k, v, cache, 0, batch, 0.7).reshape(n, kv_heads * group, dim)
    keys, values = (rounded(x.reshape(n, kv_heads, dim), kv_format) for x in (k, v))
    if kv_format == "q8_0":
        q = round_to_int8(q.reshape(-1, dim)).reshape(q.shape)
    if kv_format == "i16":
        q = in_steps(q.reshape(-1, dim), 4095).reshape(q.shape)
    for i in (0, 1, 4, 5, 6, 255, 256, 257, 269):
        first = 0 if window is None else max(0, i - window + 1)
        for head in range(kv_heads * group):
            query = q.reshape(n, -1, dim)[i, head].astype(float)
            scores = [0.7 * float(query @ keys[j, head // group]) for j in range(first, i + 1)]
            weights = [math.exp(s - max(scores)) for s in scores]
            expected = sum(w * values[first + j, head // group] for j, w in enumerate(weights)) / sum(weights)
            np.testing.assert_allclose(found[i, head], expected, rtol=1e-5, atol=1e-6)


def test_activations():
    x = np.array([[-800, -100, -20, -1, -1e-8, 0, 1e-8, 0.5, 3, 100, 3e38]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        silu = ops.activation(x, "silu")
    tanh, exact = ops.activation(x[:, 1:-1], "gelu_tanh")[0], ops.activation(x[:, 1:-1], "gelu")[0]
    for i, value in enumerate(float(v) for v in x[0]):
        sigmoid = 1 / (1 + math.exp(-value)) if value > -700 else 0.0
        assert silu[0, i] == pytest.approx(value * sigmoid, rel=1e-6, abs=1e-37)
    for i, value in enumerate(float(v) for v in x[0, 1:-1]):
        assert exact[i] == pytest.approx(0.5 * value * math.erfc(-value / math.sqrt(2)), rel=1e-6, abs=1e-14)
        inner = math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)
        assert tanh[i] == pytest.approx(0.5 * value * (1 + math.tanh(inner)), rel=1e-6, abs=1e-14)
    small = x[:, :-1]  # the square of the last overflows
    np.testing.assert_array_equal(ops.glu(small, small, "silu"), silu[:, :-1] * small)


def test_embedding_and_rows():
    table = draw(7, 64)
    for name in ("F32", "Q8_0"):
        weight = tensor(table, name)
        ids = np.array([6, 0, 6], np.int32)
        expected = weight.dequantize()[ids] * np.float32(3.7)
        np.testing.assert_array_equal(ops.embed(ops.embedding(weight), ids, 3.7), expected)
    for wrong in (-1, 7):
        with pytest.raises(UsageError, match=str(wrong)):
            ops.embed(tensor(table), np.array([wrong], np.int32))
    np.testing.assert_array_equal(ops.rows(table, np.array([5, 1], np.int32)), table[[5, 1]])
    assert ops.rows(table, np.zeros(0, np.int32)).shape == (0, 64)
    np.testing.assert_array_equal(ops.add(table, table[0]), table + table[0])


def test_cache_of_an_unknown_format():
    with pytest.raises(UsageError, match="q8"):
        ops.kv_cache([LayerSpec(1, 4)], 1, 16, "q8")


def test_cache_bytes_and_copies():
    cache = ops.kv_cache([LayerSpec(2, 4), LayerSpec(1, 8)], 3, 16, "f16")
    assert cache.num_bytes == 3 * 16 * (2 * 4 + 1 * 8) * 2 * 2
    cache.keys[1][:16] = 1.0
    cache.copy_blocks([(0, 2), (2, 1)])
    assert (cache.keys[1] == 1).all()
    assert (cache.values[1] == 0).all()
