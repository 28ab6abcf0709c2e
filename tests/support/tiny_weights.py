"""Random weights under the Hub's names, large enough that a wrong sign, scale, mask or rotation shows.

With x normed to a mean square of 1, rows of standard deviation 1.5 / sqrt(inputs) give attention scores of
a standard deviation of about 2: far from uniform, not yet one-hot.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tiny_configs import architecture_of

Weights = dict[str, np.ndarray]


def random_weights(config: dict[str, Any], seed: int = 0) -> Weights:
    """float32 tensors by name, with the shapes of a Hub checkpoint."""
    rng = np.random.default_rng(seed)
    draw = _draw_gpt2 if architecture_of(config) == "gpt2" else _draw_decoder
    return draw(config, rng)


def normal(rng: np.random.Generator, *shape: int, std: float, mean: float = 0.0) -> np.ndarray:
    return (mean + std * rng.standard_normal(shape)).astype(np.float32)


def head_dim_of(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _draw_decoder(config: dict[str, Any], rng: np.random.Generator) -> Weights:
    architecture = architecture_of(config)
    width, mlp = config["hidden_size"], config["intermediate_size"]
    heads, head_dim = config["num_attention_heads"], head_dim_of(config)
    kv_heads = config.get("num_key_value_heads") or heads
    gemma = architecture == "gemma3"

    def matrix(outputs: int, inputs: int, gain: float) -> np.ndarray:
        return normal(rng, outputs, inputs, std=gain / math.sqrt(inputs))

    def norm(size: int) -> np.ndarray:
        return normal(rng, size, std=0.25, mean=0.0 if gemma else 1.0)

    # Gemma multiplies them by sqrt(width): keep them from drowning what the layers add
    std = 2.0 / math.sqrt(width) if gemma else 0.5
    weights: Weights = {"model.embed_tokens.weight": normal(rng, config["vocab_size"], width, std=std)}
    attention_bias = config.get("attention_bias", False)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        projections = {
            "self_attn.q_proj": (heads * head_dim, width, 1.5, attention_bias or architecture == "qwen2"),
            "self_attn.k_proj": (kv_heads * head_dim, width, 1.5, attention_bias or architecture == "qwen2"),
            "self_attn.v_proj": (kv_heads * head_dim, width, 1.0, attention_bias or architecture == "qwen2"),
            "self_attn.o_proj": (width, heads * head_dim, 1.0, attention_bias),
            "mlp.gate_proj": (mlp, width, 1.0, config.get("mlp_bias", False)),
            "mlp.up_proj": (mlp, width, 1.0, config.get("mlp_bias", False)),
            "mlp.down_proj": (width, mlp, 1.5, config.get("mlp_bias", False)),
        }
        for name, (outputs, inputs, gain, bias) in projections.items():
            weights[f"{layer}{name}.weight"] = matrix(outputs, inputs, gain)
            if bias:
                weights[f"{layer}{name}.bias"] = normal(rng, outputs, std=0.3)
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if gemma else []
        weights.update({f"{layer}{name}.weight": norm(width) for name in norms})
        if architecture in ("qwen3", "gemma3"):
            # larger than 1: normed heads of size d give scores of a standard deviation of gain^2 (before
            # gemma's scale)
            for name in ("q_norm", "k_norm"):
                weights[f"{layer}self_attn.{name}.weight"] = norm(head_dim) + np.float32(0.5)
    weights["model.norm.weight"] = norm(width)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = normal(rng, config["vocab_size"], width, std=0.5)
    return weights


def _draw_gpt2(config: dict[str, Any], rng: np.random.Generator) -> Weights:
    width = config["n_embd"]
    mlp = config.get("n_inner") or 4 * width
    # without 1 / sqrt(head_dim) the scores need smaller rows
    gain = 1.5 if config.get("scale_attn_weights", True) else 0.6
    weights: Weights = {
        "transformer.wte.weight": normal(rng, config["vocab_size"], width, std=0.5),
        "transformer.wpe.weight": normal(rng, config["n_positions"], width, std=0.3),
    }

    def dense(name: str, inputs: int, outputs: int, gain: float) -> None:
        weights[f"{name}.weight"] = normal(rng, inputs, outputs, std=gain / math.sqrt(inputs))
        weights[f"{name}.bias"] = normal(rng, outputs, std=0.2)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = normal(rng, width, std=0.25, mean=1.0)
        weights[f"{name}.bias"] = normal(rng, width, std=0.2)

    for index in range(config["n_layer"]):
        layer = f"transformer.h.{index}."
        norm(f"{layer}ln_1")
        dense(f"{layer}attn.c_attn", width, 3 * width, gain)
        dense(f"{layer}attn.c_proj", width, width, 1.0)
        norm(f"{layer}ln_2")
        dense(f"{layer}mlp.c_fc", width, mlp, 1.0)
        dense(f"{layer}mlp.c_proj", mlp, width, 1.5)
    norm("transformer.ln_f")
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = normal(rng, config["vocab_size"], width, std=0.5)
    return weights
