"""Inverse frequencies: against the papers' formulas, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from memory_checkpoint import MemoryCheckpoint, gguf, hub
from tiny_checkpoints import llama3_factors

from pellucid.errors import ModelFileError, UnsupportedModelError
from pellucid.models.config import Settings
from pellucid.models.rope import llama3_scaled, plain_frequencies, rotation


def settings(**changes):
    config = {"model_type": "llama", "rope_theta": 500000.0} | changes
    return Settings(MemoryCheckpoint(config, {}))


def test_plain():
    found = inverse_frequencies(settings(), 64)
    assert found.dtype == np.float32
    expected = [1 / 500000.0 ** (2 * i / 64) for i in range(32)]
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert found[0] == 1.0


def test_linear_divides_all():
    plain = inverse_frequencies(settings(), 64)
    for spelling in ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4}):
        np.testing.assert_array_equal(
            inverse_frequencies(settings(rope_scaling=spelling), 64), plain / np.float32(4)
        )


def test_llama3_against_one_wavelength_at_a_time():
    """Llama 3.1's published numbers."""
    parameters = {"rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 8192}  # fmt: skip
    plain = plain_frequencies(500000.0, 128)
    scaled = llama3_scaled(plain, 8.0, 1.0, 4.0, 8192)
    np.testing.assert_allclose(scaled, plain / llama3_factors(128, parameters), rtol=1e-6)
    kept = plain * 8192 / (2 * math.pi) > 4
    slow = plain * 8192 / (2 * math.pi) < 1
    assert kept.any() and slow.any() and not (kept | slow).all()
    np.testing.assert_array_equal(scaled[kept], plain[kept])
    np.testing.assert_allclose(scaled[slow], plain[slow] / 8, rtol=1e-15)


def test_both_spellings_of_the_hub_agree():
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}  # fmt: skip
    old = inverse_frequencies(settings(rope_scaling=scaling), 64)
    new = inverse_frequencies(
        settings(rope_theta=None, rope_parameters={**scaling, "rope_theta": 500000.0}), 64
    )
    np.testing.assert_array_equal(old, new)


def test_the_containers_agree(tmp_path):
    """rope_freqs.weight (GGUF) and rope_scaling (the Hub) mean the same; the factors are float32 in the
    file."""
    from_file = gguf("llama", tmp_path)
    a = inverse_frequencies(Settings(hub("llama")), 16)
    b = inverse_frequencies(Settings(from_file), 16, from_file.tensors["rope_freqs.weight"])
    np.testing.assert_allclose(a, b, rtol=3e-7)


@pytest.mark.parametrize(
    "missing", ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
)
def test_a_parameter_is_missing(missing):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}  # fmt: skip
    del scaling[missing]
    with pytest.raises(ModelFileError, match=missing):
        inverse_frequencies(settings(rope_scaling=scaling), 64)


@pytest.mark.parametrize("scaling", [[1], "linear", 4.0, {"rope_type": ["linear"]}, {"a": {"b": 1}}])
def test_malformed(scaling):
    with pytest.raises((ModelFileError, UnsupportedModelError)):
        inverse_frequencies(settings(rope_scaling=scaling), 64)


def test_factors_must_be_numbers_above_zero(tmp_path):
    checkpoint = gguf("llama", tmp_path)
    for bad in (0.0, -1.0, np.nan, np.inf):
        factors = np.ones(8, np.float32)
        factors[3] = bad
        with pytest.raises(ModelFileError, match=r"rope_freqs"):
            inverse_frequencies(Settings(checkpoint), 16, factors)
