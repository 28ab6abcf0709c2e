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


def inverse_frequencies(*args, **kwargs):
    return rotation(*args, **kwargs).inv_freq


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


def yarn_one_at_a_time(head_dim, theta, factor, context, fast=32, slow=1):
    """The paper's equations, pair by pair (section 3.2), on indices rounded outwards as its code does."""

    def index(turns):  # the pair that turns so often in `context` positions
        return head_dim / 2 * math.log(context / (2 * math.pi * turns), theta)

    low, high = max(math.floor(index(fast)), 0), min(math.ceil(index(slow)), head_dim - 1)
    found = []
    for i in range(head_dim // 2):
        plain = theta ** (-2 * i / head_dim)
        share = min(max((i - low) / (high - low), 0), 1)
        found.append((1 - share) * plain + share * plain / factor)
    return found


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def test_yarn_against_one_pair_at_a_time():
    """Qwen2.5's published setting for 131,072 positions."""
    found = rotation(settings(rope_theta=1e6, max_position_embeddings=32768, rope_scaling=YARN), 128)
    np.testing.assert_allclose(found.inv_freq, yarn_one_at_a_time(128, 1e6, 4.0, 32768), rtol=1e-6)
    assert found.scale == pytest.approx(0.1 * math.log(4) + 1)
    assert found.context_length == 131072
    plain = rotation(settings(rope_theta=1e6), 128).inv_freq
    assert found.inv_freq[0] == plain[0]
    assert found.inv_freq[-1] == pytest.approx(plain[-1] / 4)


def test_yarn_parameters():
    """Each one has its effect, and absence has transformers' meaning."""

    def turn(**more):
        return rotation(
            settings(rope_theta=1e6, max_position_embeddings=32768, rope_scaling=YARN | more), 128
        )

    usual = turn()
    for same in ({"beta_fast": 32}, {"beta_slow": 1.0}, {"truncate": True}, {"attention_factor": None},
                 {"original_max_position_embeddings": None}):  # fmt: skip
        np.testing.assert_array_equal(turn(**same).inv_freq, usual.inv_freq)
        assert turn(**same).scale == usual.scale
    np.testing.assert_allclose(
        turn(beta_fast=16).inv_freq, yarn_one_at_a_time(128, 1e6, 4.0, 32768, fast=16), rtol=1e-6
    )
    assert (turn(truncate=False).inv_freq != usual.inv_freq).any()
    assert turn(attention_factor=1.25).scale == 1.25
    assert turn(mscale=2.0, mscale_all_dim=1.0).scale == pytest.approx(
        (0.2 * math.log(4) + 1) / (0.1 * math.log(4) + 1)
    )
    assert turn(mscale=2.0).scale == usual.scale  # both or none
    for bad in ({"factor": None}, {"factor": 0}, {"beta_fast": 1}, {"truncate": 3}, {"attention_factor": "1"},
                {"original_max_position_embeddings": -1}):  # fmt: skip
        with pytest.raises(ModelFileError, match=next(iter(bad))):
            turn(**bad)
