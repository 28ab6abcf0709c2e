"""A tensor that names a file lies in that file: packing gives such pages back to the system."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid.models.weights import transposed
from pellucid.weights.checkpoint import open_checkpoint


def test_a_tensor_made_in_memory_names_no_file(tmp_path):
    checkpoint = open_checkpoint(make(tmp_path, "gpt2", "safetensors"))
    name = next(name for name in checkpoint.tensor_names if name.endswith("c_fc.weight"))
    weight = checkpoint.tensor(name)
    assert weight.source is not None
    turned = transposed(weight)
    assert turned.source is None
    assert np.array_equal(turned.dequantize(), weight.dequantize().T)
    with pytest.raises(ValueError, match="does not lie in its source"):
        replace(weight, data=turned.data)
    with pytest.raises(ValueError, match="does not lie in its source"):
        replace(weight, offset=weight.offset + 4)
    assert replace(weight, data=weight.data[8:], offset=weight.offset + 8).source is weight.source
