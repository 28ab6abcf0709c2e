"""Hostile and unknown settings: each is refused in one line that names it, and nothing large is allocated
first."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from memory_checkpoint import gguf, hub

from pellucid.errors import ModelFileError, UnsupportedModelError
from pellucid.models.base import models
from pellucid.ops.reference import ReferenceOps

WRONG = [
    0,
    -1,
    1 << 31,
    1 << 62,
    10**400,
    -(10**5000),
    1.5,
    float("nan"),
    float("inf"),
    "8",
    True,
    [8],
    {},
    None,
]

# architecture -> its sizes, (config.json, GGUF under the prefix)
DECODER_SIZES = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "head_dim": "attention.key_length",
}
SIZES = {
    "llama": DECODER_SIZES,
    "qwen2": {k: v for k, v in DECODER_SIZES.items() if k != "head_dim"},
    "qwen3": DECODER_SIZES,
    "gemma3": DECODER_SIZES | {"sliding_window": "attention.sliding_window"},
    "gpt2": {"n_embd": "embedding_length", "n_layer": "block_count", "n_head": "attention.head_count",
             "n_positions": "context_length"},
}  # fmt: skip
OPTIONAL = {"head_dim", "num_key_value_heads", "sliding_window"}  # may be null


def load(checkpoint):
    return models[checkpoint.architecture].load(checkpoint, ReferenceOps())


def refused(checkpoint, key, kind=ModelFileError):
    """The one-line error of loading, which names the setting."""
    with pytest.raises(kind) as caught:
        load(checkpoint)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert key in caught.value.field, message
    return message


def size_cases():
    return [(name, key) for name, keys in SIZES.items() for key in keys]


@pytest.mark.parametrize(("name", "key"), size_cases())
def test_wrong_sizes_of_config_json(name, key):
    assert sorted(SIZES) == list(models)
    for value in WRONG:
        if value is None and key in OPTIONAL:
            continue
        checkpoint = hub(name)
        checkpoint.config[key] = value
        refused(checkpoint, key)


@pytest.mark.parametrize(("name", "key"), size_cases())
def test_wrong_sizes_of_gguf(tmp_path, name, key):
    checkpoint = gguf(name, tmp_path)
    full = f"{name}.{SIZES[name][key]}"
    good = checkpoint.config[full]
    for value in WRONG:
        if value is None:
            continue
        checkpoint.config[full] = value
        if value == 0 and key == "head_dim":
            continue  # llama.cpp writes 0 for "not given"
        if value == 0 and key == "sliding_window":
            continue  # and for "none"
        refused(checkpoint, full)
    checkpoint.config[full] = np.uint32(good)  # whatever integers the reader gives
    load(checkpoint)


@pytest.mark.parametrize("name", list(models))
def test_sizes_that_contradict_the_tensors(name):
    """One more or less than the tensors have: the tensor's shape is the error, or the layer that is not
    there."""
    for key in SIZES[name]:
        if key in ("max_position_embeddings", "sliding_window", "n_head"):
            continue  # no tensor knows
        for step in (-1, 1):
            checkpoint = hub(name)
            checkpoint.config[key] += step
            with pytest.raises(ModelFileError):
                load(checkpoint)


@pytest.mark.parametrize("name", list(models))
def test_many_claimed_layers_cost_nothing(name):
    key = "n_layer" if name == "gpt2" else "num_hidden_layers"
    checkpoint = hub(name)
    checkpoint.config[key] = 1024
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="missing"):
        load(checkpoint)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


NUMBERS = {
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3"])
@pytest.mark.parametrize("key", NUMBERS)
def test_wrong_numbers(tmp_path, name, key):
    for value in [0, 0.0, -1e-5, float("nan"), float("inf"), 1e30, "1e-5", True, [1.0]]:
        checkpoint = hub(name)
        checkpoint.config[key] = value
        refused(checkpoint, key)
        checkpoint = gguf(name, tmp_path)
        checkpoint.config[f"{name}.{NUMBERS[key]}"] = value
        refused(checkpoint, NUMBERS[key])


UNSUPPORTED = [
    ("llama", "quantization_config", {"quant_method": "gptq"}),
    ("llama", "num_local_experts", 8),
    ("llama", "hidden_act", "gelu"),
    ("llama", "hidden_act", 3),
    ("llama", "partial_rotary_factor", 0.5),
    ("llama", "sliding_window", 4096),
    ("llama", "layer_types", ["full_attention", "linear_attention", "full_attention"]),
    ("llama", "rope_scaling", {"rope_type": "dynamic", "factor": 4.0}),
    ("llama", "rope_scaling", {"type": "dynamic", "factor": 4.0}),
    ("llama", "rope_scaling", {"rope_type": "longrope", "short_factor": [1.0]}),
    ("llama", "rope_scaling", {"rope_type": "new", "factor": 4.0}),
    ("llama", "attn_logit_softcapping", 30.0),
    ("qwen2", "num_experts", 60),
    ("qwen2", "use_mrope", True),
    ("qwen2", "layer_types", ["linear_attention"] * 3),
    ("qwen3", "moe_intermediate_size", 768),
    ("gemma3", "final_logit_softcapping", 30.0),
    ("gemma3", "hidden_activation", "relu"),
    ("gemma3", "use_bidirectional_attention", True),
    ("gemma3", "layer_types", ["chunked_attention"] * 4),
    ("gpt2", "activation_function", "relu"),
    ("gpt2", "add_cross_attention", True),
]


@pytest.mark.parametrize(("name", "key", "value"), UNSUPPORTED)
def test_features_that_we_do_not_run(name, key, value):
    checkpoint = hub(name)
    checkpoint.config[key] = value
    refused(checkpoint, key, UnsupportedModelError)


UNSUPPORTED_GGUF = [
    ("llama", "expert_count", 8),
    ("llama", "rope.scaling.type", "longrope"),
    ("llama", "attention.clamp_kqv", 8.0),
    ("llama", "attention.causal", False),
    ("llama", "attention.value_length", 32),
    ("llama", "rope.dimension_count", 8),
    ("llama", "rope.new_feature", 1),
    ("llama", "logit_scale", 0.5),
    ("qwen2", "attention.sliding_window", 128),
    ("qwen3", "attention.sinks", 4),
    ("gemma3", "final_logit_softcapping", 30.0),
    ("gpt2", "attention.head_count_kv", 1),
]


@pytest.mark.parametrize(("name", "key", "value"), UNSUPPORTED_GGUF)
def test_features_that_we_do_not_run_in_gguf(tmp_path, name, key, value):
    checkpoint = gguf(name, tmp_path)
    checkpoint.config[f"{name}.{key}"] = value
    if key == "rope.scaling.type":
        checkpoint.config[f"{name}.rope.scaling.factor"] = 2.0
    refused(checkpoint, key, UnsupportedModelError)


def test_neutral_values_are_no_features():
    checkpoint = hub("llama")
    checkpoint.config |= {"num_local_experts": 0, "partial_rotary_factor": 1.0, "sliding_window": None,
                          "quantization_config": None, "logit_scale": 1, "hidden_act": "swish"}  # fmt: skip
    load(checkpoint)


@pytest.mark.parametrize("name", list(models))
@pytest.mark.parametrize("container", ["hub", "gguf"])
def test_a_tensor_without_a_place_is_refused(tmp_path, name, container):
    checkpoint = hub(name) if container == "hub" else gguf(name, tmp_path)
    extra = "model.layers.0.self_attn.extra.weight" if container == "hub" else "blk.0.attn_extra.weight"
    checkpoint.tensors[extra] = np.zeros((4, 4), np.float32)
    assert "no place" in refused(checkpoint, extra, UnsupportedModelError)


def test_a_bias_against_the_settings_is_refused():
    checkpoint = hub("llama")
    checkpoint.tensors["model.layers.1.mlp.up_proj.bias"] = np.zeros(160, np.float32)
    refused(checkpoint, "model.layers.1.mlp.up_proj.bias", UnsupportedModelError)


@pytest.mark.parametrize("name", list(models))
def test_every_tensor_is_needed(tmp_path, name):
    """Leave out one at a time: an error that names it, from both containers."""
    for whole in (hub(name), gguf(name, tmp_path)):
        for missing in whole.tensor_names:
            if missing == "rope_freqs.weight":
                continue  # its absence means that there is no scaling
            kept = {key: value for key, value in whole.tensors.items() if key != missing}
            checkpoint = type(whole)(whole.config, kept, whole.container)
            if missing == "output.weight":
                load(checkpoint)  # GGUF: then the head is the embedding
            else:
                with pytest.raises(ModelFileError) as caught:
                    load(checkpoint)
                assert missing in str(caught.value)


def test_tied_but_different():
    checkpoint = hub("llama")
    embedding = checkpoint.tensors["model.embed_tokens.weight"]
    checkpoint.tensors["lm_head.weight"] = embedding.copy()
    load(checkpoint)
    checkpoint.tensors["lm_head.weight"] = embedding + 1
    assert "tie_word_embeddings" in refused(checkpoint, "lm_head.weight")
