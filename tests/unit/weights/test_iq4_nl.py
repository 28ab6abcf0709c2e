"""IQ4_NL is read as Q8_0, with the values of the `gguf` package's own dequantisation."""

from __future__ import annotations

import gguf
import numpy as np

from pellucid.weights.checkpoint import open_checkpoint
from pellucid.weights.iq4_nl import as_q8_0
from pellucid.weights.tensor import Format

IQ4_NL = gguf.GGMLQuantizationType.IQ4_NL


def random_blocks(num_rows, blocks_in_row, seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (num_rows, blocks_in_row, 18), dtype=np.uint8)
    scales = rng.standard_normal((num_rows, blocks_in_row, 1)).astype(np.float16)
    blocks[..., :2] = scales.view(np.uint8).reshape(num_rows, blocks_in_row, 2)
    return blocks.reshape(num_rows, -1)


def test_every_code_in_every_place():
    blocks = np.zeros((256, 18), np.uint8)
    blocks[:, :2] = np.frombuffer(np.float16(0.125).tobytes(), np.uint8)
    blocks[:, 2:] = np.arange(256)[:, None]
    expected = gguf.quants.dequantize(blocks, IQ4_NL)
    again = as_q8_0(blocks.reshape(-1)).reshape(256, 34)
    np.testing.assert_array_equal(
        gguf.quants.dequantize(again, gguf.GGMLQuantizationType.Q8_0), expected, strict=True
    )


def test_through_a_file(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    blocks = random_blocks(7, 5)
    writer.add_tensor("w", blocks, raw_dtype=IQ4_NL)
    writer.add_tensor("v", np.ones(4, np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    checkpoint = open_checkpoint(path)
    assert sorted(checkpoint.tensor_names) == ["v", "w"]
    tensor = checkpoint.tensor("w", (7, 160))
    assert tensor.format is Format.Q8_0
    assert checkpoint.stored("w") == ("IQ4_NL", 7 * 160, 7 * 5 * 18)  # what `info` tells
    assert checkpoint.stored("v") == ("F32", 4, 16)
    np.testing.assert_array_equal(tensor.dequantize(), gguf.quants.dequantize(blocks, IQ4_NL), strict=True)
