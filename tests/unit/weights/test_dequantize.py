"""Every weight format: the same float32 bits as the gguf package, on random bytes and on real models."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from real_models import real_model

from pellucid import _native
from pellucid.weights.gguf import GGUFFile
from pellucid.weights.tensor import Format, Tensor


def _reference(data: np.ndarray, label: str) -> np.ndarray:
    """data: uint8 [rows, bytes] -> float32 [rows, values]"""
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[label])


def _assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal as bits, or both NaN (the sign and payload of a NaN that arithmetic made are the hardware's)."""
    assert ours.dtype == theirs.dtype == np.float32
    same = ours.reshape(-1).view(np.uint32) == theirs.reshape(-1).view(np.uint32)
    both_nan = np.isnan(ours.reshape(-1)) & np.isnan(theirs.reshape(-1))
    assert (same | both_nan).all(), np.flatnonzero(~(same | both_nan))[:10]


def test_native_table_agrees_with_the_enum_and_the_reference() -> None:
    native = {label: (values, num_bytes) for label, values, num_bytes in _native.weight_formats()}
    assert native == {entry.label: (entry.block_size, entry.block_bytes) for entry in Format}
    for entry in Format:
        kind = gguf.GGMLQuantizationType(entry.ggml_type)
        assert kind.name == entry.label
        assert gguf.GGML_QUANT_SIZES[kind] == (entry.block_size, entry.block_bytes)


@pytest.mark.parametrize("weight_format", Format, ids=lambda entry: entry.label)
def test_random_bytes(weight_format: Format) -> None:
    """All patterns of scales occur: subnormal, infinite, NaN, negative zero."""
    rng = np.random.default_rng(weight_format.ggml_type)
    blocks = 4096 if weight_format.block_size == 256 else 16_384
    data = rng.integers(0, 256, (16, blocks // 16 * weight_format.block_bytes), dtype=np.uint8)
    shape = (16, blocks // 16 * weight_format.block_size)
    ours = Tensor("t", shape, weight_format, data.reshape(-1)).dequantize()
    assert ours.shape == shape
    _assert_same_bits(ours, _reference(data, weight_format.label))


@pytest.mark.parametrize(
    "weight_format", [f for f in Format if not f.is_float], ids=lambda entry: entry.label
)
def test_special_scales(weight_format: Format) -> None:
    """Every 16-bit field of a block set, in turn, to the special float16 values."""
    rng = np.random.default_rng(7)
    specials = [
        0x0000,
        0x8000,
        0x0001,
        0x8001,
        0x03FF,
        0x0400,
        0x7BFF,
        0xFBFF,
        0x7C00,
        0xFC00,
        0x7E00,
        0x7C01,
    ]
    rows = []
    for at in range(0, weight_format.block_bytes - 1, 2):
        for special in specials:
            row = rng.integers(0, 256, weight_format.block_bytes, dtype=np.uint8)
            row[at : at + 2] = np.frombuffer(np.uint16(special).tobytes(), np.uint8)
            rows.append(row)
    data = np.array(rows)
    shape = (len(rows), weight_format.block_size)
    ours = Tensor("t", shape, weight_format, data.reshape(-1)).dequantize()
    _assert_same_bits(ours, _reference(data, weight_format.label))


@pytest.mark.parametrize("label", ["F16", "BF16"])
def test_all_16_bit_patterns(label: str) -> None:
    data = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    ours = Tensor("t", (1 << 16,), Format[label], data).dequantize()
    _assert_same_bits(ours, _reference(data.reshape(1, -1), label))
    if label == "BF16":  # exact, NaN included
        assert (ours.view(np.uint32) == np.arange(1 << 16, dtype=np.uint32) << 16).all()


@pytest.mark.parametrize("weight_format", Format, ids=lambda entry: entry.label)
def test_misaligned_data(weight_format: Format) -> None:
    """A file may put a tensor at any byte."""
    rng = np.random.default_rng(3)
    buffer = rng.integers(0, 256, 8 * weight_format.block_bytes + 3, dtype=np.uint8)
    shape = (8, weight_format.block_size)
    for shift in (1, 2, 3):
        data = buffer[shift : shift + 8 * weight_format.block_bytes]
        ours = Tensor("t", shape, weight_format, data).dequantize()
        again = Tensor("t", shape, weight_format, data.copy()).dequantize()
        assert ours.tobytes() == again.tobytes()


@pytest.mark.parametrize(
    ("label", "num_bytes", "num_values"),
    [("Q4_0", 17, 32), ("Q4_0", 18, 31), ("Q4_0", 18, 64), ("Q6_K", 0, 256), ("F32", 8, 1), ("Q9_9", 18, 32)],
)
def test_sizes_are_checked(label: str, num_bytes: int, num_values: int) -> None:
    out = np.full(num_values, 7.0, np.float32)
    with pytest.raises(ValueError, match="dequantize"):
        _native.dequantize(label, np.zeros(num_bytes, np.uint8), out)
    assert (out == 7.0).all()


def test_rows_are_views_of_the_same_values() -> None:
    rng = np.random.default_rng(11)
    data = rng.integers(0, 100, 6 * 2 * Format.Q5_K.block_bytes, dtype=np.uint8)
    matrix = Tensor("m", (6, 512), Format.Q5_K, data)
    part = matrix.rows(2, 5)
    assert part.shape == (3, 512) and part.data.base is not None
    assert part.dequantize().tobytes() == matrix.dequantize()[2:5].tobytes()
    with pytest.raises(IndexError, match=r"rows \[5, 7\) of 6"):
        matrix.rows(5, 7)


@pytest.mark.parametrize("name", ["smollm2", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_real_model(name: str) -> None:
    """At least one tensor of each format of the file, whole; embeddings by their first rows."""
    path = real_model(name)
    ours = GGUFFile(path)  # the other reader is what takes long: it copies each of 262,144 strings
    seen: set[Format] = set()
    for tensor in gguf.GGUFReader(path).tensors:
        mine = ours.tensors[tensor.name]
        if mine.format in seen:
            continue
        seen.add(mine.format)
        stop = min(mine.shape[0], 4096)
        mine, data = (mine.rows(0, stop), tensor.data[:stop]) if len(mine.shape) == 2 else (mine, tensor.data)
        _assert_same_bits(mine.dequantize(), _reference(data, mine.format.label))
    assert len(seen) >= 3
