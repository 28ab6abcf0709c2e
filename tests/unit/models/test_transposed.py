"""A matrix that is turned in memory is no longer a part of its file: nobody may give back its pages."""

from __future__ import annotations

import numpy as np

from pellucid.models.weights import transposed
from pellucid.weights.mapped import MappedFile
from pellucid.weights.tensor import Format, Tensor


def test_a_transposed_matrix_leaves_its_file(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "weights"
    path.write_bytes(values.tobytes())
    tensor = Tensor("w", (2, 3), Format.F32, np.frombuffer(path.read_bytes(), np.uint8), MappedFile(path))
    turned = transposed(tensor)
    assert turned.source is None
    np.testing.assert_array_equal(turned.dequantize(), values.T)
