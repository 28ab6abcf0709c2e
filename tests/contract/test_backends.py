"""The native backend against its NumPy twin, and against itself on other threads and instruction sets."""

from __future__ import annotations

import numpy as np
import pytest
from backends import backend
from passes import all_logits
from tiny_checkpoints import make
from tiny_configs import VARIANTS

from pellucid.models.base import models
from pellucid.weights.checkpoint import open_checkpoint

FLOATS = ["F32", "F16", "BF16"]
QUANTS = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
# One int8 step of one activation is what the twins may differ by: it happens where float32 and float64 sums
# fall on two sides of a rounding boundary, and is then carried on by the layers above.
TOLERANCE = {"float": 2e-5, "quantised": 3e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def load(path, ops):
    checkpoint = open_checkpoint(path)
    return models[checkpoint.architecture].load(checkpoint, ops)


def logits(path, ops, length=300):
    model = load(path, ops)
    ids = np.random.default_rng(3).integers(0, model.vocabulary_size, length).tolist()
    return all_logits(model, ops, ids, kv_format="f32")


def distances(a, b):
    """(largest, mean) difference, relative to the largest |logit|."""
    difference = np.abs(a - b) / np.abs(b).max()
    return difference.max(), difference.mean()


@pytest.mark.parametrize("name", VARIANTS)
def test_float_weights_agree_with_the_twin(folder, name):
    path = make(folder, name, "safetensors")
    largest, _ = distances(logits(path, backend("cpu")), logits(path, backend("reference")))
    assert largest < TOLERANCE["float"]


@pytest.mark.parametrize("quant", FLOATS + QUANTS)
def test_every_format_agrees_with_the_twin(folder, quant):
    path = make(folder, "llama-256", "gguf", quant)
    largest, mean = distances(logits(path, backend("cpu")), logits(path, backend("reference")))
    bound = TOLERANCE["float" if quant in FLOATS else "quantised"]
    assert largest < bound
    assert mean < bound / 10


@pytest.mark.parametrize("name", list(models))
def test_bf16_activations_agree_with_the_twin(folder, name):
    """As for int8: now and then a sum falls on two sides of a rounding boundary, and that is carried on. (That each
    product is exactly what it should be: tests/unit/ops/test_cpu_ops.py.)"""
    path = make(folder, name, "gguf", "BF16")
    native, twin = (type(backend(kind))(bf16_activations=True) for kind in ("cpu", "reference"))
    got, want, exact = (logits(path, ops) for ops in (native, twin, backend("reference")))
    for other in (want, exact):
        largest, mean = distances(got, other)
        assert 0 < largest < TOLERANCE["quantised"]
        assert mean < TOLERANCE["quantised"] / 10


@pytest.mark.parametrize("name", list(models))
@pytest.mark.parametrize("quant", ["F32", "Q8_0", "BF16"])
def test_threads_and_instruction_sets_give_the_same_bits(folder, name, quant):
    from pellucid import _native

    bf16 = quant == "BF16"  # float32 products are F32's
    one = type(backend("cpu"))(bf16_activations=bf16)
    path = make(folder, name, "gguf", quant)
    expected = logits(path, one)
    for isa in _native.instruction_sets():
        for num_threads in (1, 2, 3):
            found = logits(path, type(one)(num_threads=num_threads, isa=isa, bf16_activations=bf16))
            np.testing.assert_array_equal(
                expected.view(np.uint32), found.view(np.uint32), err_msg=f"{isa} {num_threads}"
            )
