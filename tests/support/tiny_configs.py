"""Configurations of tiny random models: one `TINY` a registered architecture, and variants of each feature.

Shapes are awkward on purpose: widths that are odd multiples of 32, head sizes from 16 to 64, one to four
query heads a key head, windows shorter than the prompts, more and fewer layers than a period of the window
pattern.
"""

from __future__ import annotations

from typing import Any

from pellucid.models.base import models

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# name -> (architecture, what differs from its TINY). A key with the value ... is left out of config.json.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-1": (
        "llama",
        {
            "num_key_value_heads": ...,
            "head_dim": ...,
            "rope_theta": ...,
            "rope_scaling": ...,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
        },
    ),
    "llama-linear": (
        "llama",
        {
            "rope_scaling": {"type": "linear", "factor": 4.0},
            "rms_norm_eps": 1e-5,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 64,
        },
    ),
    "llama-biases": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "rope_scaling": None, "tie_word_embeddings": False},
    ),
    "llama-256": (  # widths that super-blocks of 256 divide, for the K-quants
        "llama",
        {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "head_dim": 64},
    ),
    "llama-rope-parameters": (
        "llama",
        {
            "rope_theta": ...,
            "rope_scaling": ...,
            "rope_parameters": {"rope_theta": 500000.0, **LLAMA3_SCALING},
        },
    ),
    "mistral": (
        "llama",
        {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "sliding_window": 20,
            "rope_scaling": ...,
            "attention_bias": ...,
            "mlp_bias": ...,
            "tie_word_embeddings": False,
        },
    ),
    "mistral-no-window": (
        "llama",
        {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "sliding_window": None,
            "rope_scaling": ...,
            "attention_bias": ...,
            "mlp_bias": ...,
        },
    ),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": (
        "qwen2",
        {"tie_word_embeddings": True, "num_attention_heads": 10, "num_key_value_heads": 2, "head_dim": ...},
    ),
    "qwen2-window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 17, "max_window_layers": 1},
    ),
    "qwen2-yarn": (
        "qwen2",
        {
            "max_position_embeddings": 128,
            "rope_theta": 10000.0,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        },
    ),
    "llama-yarn": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 8.0,
                "original_max_position_embeddings": 128,
                "attention_factor": 1.1,
                "beta_fast": 16,
                "beta_slow": 2,
            },
            "head_dim": 64,
        },
    ),
    "qwen3": ("qwen3", {}),
    "qwen3-untied-biases": (
        "qwen3",
        {"tie_word_embeddings": False, "attention_bias": True, "head_dim": 32, "num_attention_heads": 8},
    ),
    "gemma3": ("gemma3", {}),
    "gemma3-rope-parameters": (
        "gemma3",
        {
            "rope_theta": ...,
            "rope_local_base_freq": ...,
            "rope_scaling": ...,
            "sliding_window_pattern": ...,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 200000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            },
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 64,
            "num_key_value_heads": 2,
        },
    ),
    "gemma3-period": (
        "gemma3",
        {
            "num_hidden_layers": 7,
            "sliding_window_pattern": 6,
            "rope_scaling": None,
            "sliding_window": 9,
            "query_pre_attn_scalar": 64,
            "head_dim": 32,
            "hidden_size": 96,
        },
    ),
    "gpt2": ("gpt2", {}),
    "gpt2-untied": (
        "gpt2",
        {
            "n_inner": 160,
            "n_embd": 160,
            "n_head": 5,
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
        },
    ),
    "gpt2-scales": (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False, "activation_function": "gelu"},
    ),
}

# What GGUF cannot say: these variants are read from safetensors only.
HUB_ONLY = frozenset({"qwen2-window", "gpt2-scales"})


def variant(name: str) -> dict[str, Any]:
    """The config.json of a variant."""
    architecture, changes = VARIANTS[name]
    config = {**models[architecture].TINY, **changes}
    return {key: value for key, value in config.items() if value is not ...}


def architecture_of(config: dict[str, Any]) -> str:
    """config.json's model_type -> the name registered in `models`."""
    return {"mistral": "llama", "gemma3_text": "gemma3"}.get(config["model_type"], config["model_type"])
