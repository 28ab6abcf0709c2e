"""Gemma 3 (text): layers with a sliding window between layers without, and four norms a layer.

Gemma team 2025, arXiv 2503.19786. The two kinds of layers rotate with different bases; query and key heads
are normed; every block's output is normed again before it joins the residual stream. Norm weights are
stored as w with 1 + w meant in safetensors, and as 1 + w in GGUF.

Embeddings are multiplied by sqrt(width). Gemma was trained with that number rounded to bfloat16, and
transformers rounds it to the dtype in which the weights are held; llama.cpp takes float32. Pellucid
computes in float32, so the factor is float32 whatever format the file's weights have: equal to transformers
in float32 and to llama.cpp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.models.base import Checkpoint, models
from pellucid.models.config import (
    MAX_CONTEXT,
    MAX_LAYERS,
    DecoderShape,
    Settings,
    decoder_shape,
    layer_windows,
)
from pellucid.models.rope import MAX_THETA, Rotation, plain_frequencies, rotation
from pellucid.models.weights import DECODER, Weights
from pellucid.ops.base import Ops
from pellucid.types import Batch, Float32, LayerSpec, Logits

NAMES = DECODER | {
    "query_norm": ("blk.{}.attn_q_norm", "layers.{}.self_attn.q_norm"),
    "key_norm": ("blk.{}.attn_k_norm", "layers.{}.self_attn.k_norm"),
    "attention_post_norm": ("blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm"),
    "mlp_norm": ("blk.{}.ffn_norm", "layers.{}.pre_feedforward_layernorm"),
    "mlp_post_norm": ("blk.{}.post_ffw_norm", "layers.{}.post_feedforward_layernorm"),
}

# What a key means that a config.json leaves out (image-and-text checkpoints do): transformers'
# Gemma3TextConfig.
HUB_DEFAULTS: dict[str, Any] = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}


@dataclass(frozen=True)
class Layer:
    attention_norm: Float32  # [width]
    query: Any  # [heads * head_dim, width]
    key: Any  # [kv_heads * head_dim, width]
    value: Any  # [kv_heads * head_dim, width]
    query_norm: Float32  # [head_dim]
    key_norm: Float32  # [head_dim]
    output: Any  # [width, heads * head_dim]
    attention_post_norm: Float32  # [width]
    mlp_norm: Float32  # [width]
    gate: Any  # [mlp_width, width]
    up: Any  # [mlp_width, width]
    down: Any  # [width, mlp_width]
    mlp_post_norm: Float32  # [width]


@models.register("gemma3")
class Gemma3:
    TINY = {  # noqa: RUF012
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": 320,
        "hidden_size": 160,
        "intermediate_size": 224,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "max_position_embeddings": 1024,
        "query_pre_attn_scalar": 48,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window": 24,
        "sliding_window_pattern": 3,
        "tie_word_embeddings": True,
    }

    architecture = "gemma3"

    @classmethod
    def load(cls, checkpoint: Checkpoint, ops: Ops) -> Gemma3:
        """Errors: ModelFileError for a setting or tensor that is missing or wrong, UnsupportedModelError
        for a feature that is not run."""
        return cls(Settings(checkpoint, hub_defaults=HUB_DEFAULTS), Weights(checkpoint, ops, NAMES), ops)

    def __init__(self, settings: Settings, weights: Weights, ops: Ops) -> None:
        shape = decoder_shape(settings)
        settings.choice(
            None, "hidden_activation", {"gelu_pytorch_tanh": "gelu_tanh"}, default="gelu_pytorch_tanh"
        )
        bias = None if settings.is_gguf else settings.flag(None, "attention_bias", default=False)
        embedding = weights.embedding(shape.width)
        self.ops, self.shape = ops, shape
        self.width, self.context_length = shape.width, shape.context_length
        self.vocabulary_size = embedding.shape[0]
        windows = _windows(settings, shape.num_layers)
        self.layers = [LayerSpec(shape.num_kv_heads, shape.head_dim, window) for window in windows]
        full, sliding = _rope_tables(settings, shape, ops)
        self.ropes = [full if window is None else sliding for window in windows]
        self.embedding_scale = float(np.float32(math.sqrt(shape.width)))
        self.attention_scales = [_attention_scale(settings, shape)] * shape.num_layers
        self.embedding = ops.embedding(embedding)
        self.blocks = [_layer(weights, shape, index, bias) for index in range(shape.num_layers)]
        self.norm = _norm(weights, "norm", shape.width)
        tied = settings.flag(None, "tie_word_embeddings", default=True)
        self.head, self.unembedding = weights.head(embedding, tied)
        weights.finish()

    def __call__(self, batch: Batch, cache: Any) -> Logits:
        ops, eps, head_dim = self.ops, self.shape.norm_eps, self.shape.head_dim
        x = ops.embed(self.embedding, batch.token_ids, self.embedding_scale)
        for index, (layer, rope) in enumerate(zip(self.blocks, self.ropes, strict=True)):
            x = batch.site("resid_pre", index, x)
            h = batch.site("attn_in", index, ops.rms_norm(x, layer.attention_norm, eps))
            q, k, v = ops.linears(h, layer.query, layer.key, layer.value)
            q = ops.rope(ops.rms_norm(q, layer.query_norm, eps), batch.positions, rope, head_dim)
            k = ops.rope(ops.rms_norm(k, layer.key_norm, eps), batch.positions, rope, head_dim)
            q, k, v = batch.site("q", index, q), batch.site("k", index, k), batch.site("v", index, v)
            h = ops.attention(q, k, v, cache, index, batch, self.attention_scales[index])
            h = batch.site("z", index, h)
            if index == len(self.blocks) - 1:  # other rows leave only their K and V behind
                x, h = ops.rows(x, batch.logit_rows), ops.rows(h, batch.logit_rows)
            h = ops.rms_norm(ops.linear(h, layer.output), layer.attention_post_norm, eps)
            x = batch.site("resid_mid", index, ops.add(x, batch.site("attn_out", index, h)))
            h = batch.site("mlp_in", index, ops.rms_norm(x, layer.mlp_norm, eps))
            h = ops.gated_mlp(h, layer.gate, layer.up, layer.down, "gelu_tanh")
            h = batch.site("mlp_out", index, ops.rms_norm(h, layer.mlp_post_norm, eps))
            x = batch.site("resid_post", index, ops.add(x, h))
        x = batch.site("final", len(self.blocks), self.final_norm(x))
        return ops.logits(x, self.head, batch)

    def final_norm(self, x: Float32) -> Float32:
        return self.ops.rms_norm(x, self.norm, self.shape.norm_eps)


def _norm(weights: Weights, noun: str, size: int, layer: int | None = None) -> Float32:
    """A norm's factor 1 + w, float32 [size]."""
    stored = weights.vector(noun, size, layer)
    return stored if weights.is_gguf else np.add(stored, np.float32(1.0), dtype=np.float32)


def _layer(weights: Weights, shape: DecoderShape, index: int, bias: bool | None) -> Layer:
    width, mlp_width = shape.width, shape.mlp_width
    return Layer(
        attention_norm=_norm(weights, "attention_norm", width, index),
        **weights.query_key_value(shape.query_width, shape.kv_width, width, index, bias=bias),
        query_norm=_norm(weights, "query_norm", shape.head_dim, index),
        key_norm=_norm(weights, "key_norm", shape.head_dim, index),
        output=weights.matrix("attention_output", width, shape.query_width, index, bias=bias),
        attention_post_norm=_norm(weights, "attention_post_norm", width, index),
        mlp_norm=_norm(weights, "mlp_norm", width, index),
        gate=weights.matrix("gate", mlp_width, width, index),
        up=weights.matrix("up", mlp_width, width, index),
        down=weights.matrix("down", width, mlp_width, index),
        mlp_post_norm=_norm(weights, "mlp_post_norm", width, index),
    )


def _windows(settings: Settings, num_layers: int) -> list[int | None]:
    """Of every `pattern` layers the last attends to everything, the others within the window."""
    low = 0 if settings.is_gguf else 1  # 0 in GGUF: no layer has one
    stated = settings.integer(
        "attention.sliding_window", "sliding_window", low=low, high=MAX_CONTEXT, default=None
    )
    window = stated or None
    layer_types = settings.raw(None, "layer_types")
    if layer_types is not None:
        return layer_windows(settings, num_layers, window, layer_types)
    pattern = settings.raw("attention.sliding_window_pattern", None)
    if isinstance(pattern, list | np.ndarray):  # GGUF may say it layer by layer
        if len(pattern) != num_layers:
            key = settings.key("attention.sliding_window_pattern", None)
            raise settings.error(key, f"expected {num_layers} entries, found {len(pattern)}")
        return [window if bool(entry) else None for entry in pattern]
    every = settings.integer(
        "attention.sliding_window_pattern", "sliding_window_pattern", high=MAX_LAYERS, default=6
    )
    return [window if (index + 1) % every else None for index in range(num_layers)]


def _rope_tables(settings: Settings, shape: DecoderShape, ops: Ops) -> tuple[Any, Any]:
    """(for layers that attend to everything, for layers with a window: never scaled)."""
    full = rotation(settings, shape.head_dim, layer_type="full_attention", default_theta=1e6)
    local = {"high": MAX_THETA, "default": 1e4}
    if not settings.is_gguf and settings.raw(None, "rope_parameters") is not None:
        sliding = rotation(settings, shape.head_dim, layer_type="sliding_attention", default_theta=1e4)
    else:
        theta = settings.number("rope.freq_base_swa", "rope_local_base_freq", **local)
        sliding = Rotation(plain_frequencies(theta, shape.head_dim).astype(np.float32))
    length = shape.context_length
    return (
        ops.rope_table(full.inv_freq, length, full.scale),
        ops.rope_table(sliding.inv_freq, length, sliding.scale),
    )


def _attention_scale(settings: Settings, shape: DecoderShape) -> float:
    """1 / sqrt(query_pre_attn_scalar). GGUF states the scale itself or, as llama.cpp has it, nothing: then
    the scalar is the head size, and in the 27B model, known by its 62 layers, width / heads."""
    if settings.is_gguf:
        scalar = shape.width / shape.num_heads if shape.num_layers == 62 else float(shape.head_dim)
        return settings.number("attention.scale", None, high=1e6, default=1.0 / math.sqrt(scalar))
    return 1.0 / math.sqrt(settings.number(None, "query_pre_attn_scalar", high=1e9))
