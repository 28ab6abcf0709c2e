"""The names and layouts that checkpoints of the same weights come in give the same logits."""

from __future__ import annotations

import numpy as np
import pytest
from memory_checkpoint import MemoryCheckpoint, hub
from passes import all_logits
from tiny_configs import variant
from tiny_weights import random_weights

from pellucid.models.base import models
from pellucid.ops.reference import ReferenceOps

IDS = np.random.default_rng(0).integers(0, 320, 40).tolist()


def logits(checkpoint):
    ops = ReferenceOps()
    return all_logits(models[checkpoint.architecture].load(checkpoint, ops), ops, IDS)


def renamed(checkpoint, old, new):
    tensors = {new + name.removeprefix(old): tensor for name, tensor in checkpoint.tensors.items()}
    return MemoryCheckpoint(checkpoint.config, tensors)


@pytest.mark.parametrize(("name", "old", "new"), [
    ("llama", "model.", ""),
    ("gemma3", "model.", "language_model.model."),
    ("gemma3", "model.", "model.language_model."),
    ("gpt2", "transformer.", ""),
])  # fmt: skip
def test_prefixes(name, old, new):
    np.testing.assert_array_equal(logits(hub(name)), logits(renamed(hub(name), old, new)))


def test_the_text_half_of_an_image_and_text_checkpoint():
    """Sizes under text_config, the rest beside it; the tensors of the image half are not the text's
    business."""
    whole = renamed(hub("gemma3"), "model.", "language_model.model.")
    config = {"model_type": "gemma3", "text_config": whole.config, "vision_config": {"hidden_size": 3}}
    tensors = {**whole.tensors, "vision_tower.patch.weight": np.zeros((3, 3)),
               "multi_modal_projector.mm_input_projection_weight": np.zeros((3, 3))}  # fmt: skip
    np.testing.assert_array_equal(logits(hub("gemma3")), logits(MemoryCheckpoint(config, tensors)))


@pytest.mark.parametrize(("name", "extra"), [
    ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    ("gpt2", "transformer.h.0.attn.bias"),
    ("gpt2", "transformer.h.1.attn.masked_bias"),
])  # fmt: skip
def test_tables_of_older_files_are_no_weights(name, extra):
    checkpoint = hub(name)
    expected = logits(checkpoint)
    checkpoint.tensors[extra] = np.ones((8,))
    np.testing.assert_array_equal(expected, logits(checkpoint))


# A setting that a model reads must matter: what changes, and to what.
MATTERS = [
    ("llama", "rms_norm_eps", 0.1),
    ("llama", "rope_theta", 10500.0),
    ("llama", "rope_scaling", None),
    ("mistral", "sliding_window", 19),
    ("qwen2", "rope_theta", 900000.0),
    ("qwen2-window", "sliding_window", 18),
    ("qwen2-window", "max_window_layers", 2),
    ("qwen2-window", "use_sliding_window", False),
    ("qwen3", "rms_norm_eps", 0.1),
    ("gemma3", "sliding_window", 23),
    ("gemma3", "sliding_window_pattern", 2),
    ("gemma3", "query_pre_attn_scalar", 50),
    ("gemma3", "rope_local_base_freq", 9000.0),
    ("gemma3", "rope_theta", 900000.0),
    ("gemma3", "rope_scaling", None),
    ("gpt2", "layer_norm_epsilon", 0.1),
    ("gpt2", "activation_function", "gelu"),
    ("gpt2", "scale_attn_weights", False),
    ("gpt2", "scale_attn_by_inverse_layer_idx", True),
]


@pytest.mark.parametrize(("name", "key", "value"), MATTERS)
def test_settings_matter(name, key, value):
    """The random weights of the parity tests are loud enough for a small change of a setting to show
    there."""
    config = variant(name)
    weights = random_weights(config)
    expected = logits(MemoryCheckpoint(config, weights))
    found = logits(MemoryCheckpoint(config | {key: value}, weights))
    assert np.abs(found - expected).max() > 3e-4 * np.abs(expected).max()


def test_grouped_heads_share_keys():
    """A model whose key heads are repeated for every query head is the same model."""
    config = variant("llama")
    weights = random_weights(config)
    repeated = dict(weights)
    for name, tensor in weights.items():
        if ".k_proj" in name or ".v_proj" in name:
            heads = tensor.reshape(2, 16, -1)
            repeated[name] = heads.repeat(3, axis=0).reshape(6 * 16, -1)
    expected = logits(MemoryCheckpoint(config, weights))
    found = logits(MemoryCheckpoint(config | {"num_key_value_heads": 6}, repeated))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
