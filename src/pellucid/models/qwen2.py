"""Qwen2 and Qwen2.5 (dense): a Llama whose query, key and value projections have biases.

Yang et al. 2024, arXiv 2407.10671; Qwen team 2024, arXiv 2412.15115.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pellucid.models.base import Checkpoint, models
from pellucid.models.config import (
    MAX_CONTEXT,
    MAX_LAYERS,
    DecoderShape,
    Settings,
    decoder_shape,
    layer_windows,
)
from pellucid.models.rope import rotation
from pellucid.models.weights import DECODER, Weights
from pellucid.ops.base import Ops
from pellucid.types import Batch, Float32, LayerSpec, Logits


@dataclass(frozen=True)
class Layer:
    attention_norm: Float32  # [width]
    query: Any  # [heads * head_dim, width], with bias
    key: Any  # [kv_heads * head_dim, width], with bias
    value: Any  # [kv_heads * head_dim, width], with bias
    output: Any  # [width, heads * head_dim]
    mlp_norm: Float32  # [width]
    gate: Any  # [mlp_width, width]
    up: Any  # [mlp_width, width]
    down: Any  # [width, mlp_width]


@models.register("qwen2")
class Qwen2:
    TINY = {  # noqa: RUF012
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 320,
        "hidden_size": 160,
        "intermediate_size": 224,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "max_window_layers": 3,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": 64,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
    }

    architecture = "qwen2"

    @classmethod
    def load(cls, checkpoint: Checkpoint, ops: Ops) -> Qwen2:
        """Errors: ModelFileError for a setting or tensor that is missing or wrong, UnsupportedModelError
        for a feature that is not run."""
        return cls(Settings(checkpoint, hub_defaults=HUB_DEFAULTS), Weights(checkpoint, ops, DECODER), ops)

    def __init__(self, settings: Settings, weights: Weights, ops: Ops) -> None:
        shape = decoder_shape(settings)
        settings.choice(None, "hidden_act", {"silu": "silu", "swish": "silu"}, default="silu")
        embedding = weights.embedding(shape.width)
        self.ops, self.shape = ops, shape
        self.width = shape.width
        self.vocabulary_size = embedding.shape[0]
        windows = qwen_windows(settings, shape.num_layers)
        self.layers = [LayerSpec(shape.num_kv_heads, shape.head_dim, window) for window in windows]
        turn = rotation(settings, shape.head_dim)
        self.context_length = max(shape.context_length, turn.context_length)
        self.rope = ops.rope_table(turn.inv_freq, self.context_length, turn.scale)
        self.attention_scales = [1.0 / math.sqrt(shape.head_dim)] * shape.num_layers
        self.embedding = ops.embedding(embedding)
        self.blocks = [_layer(weights, shape, index) for index in range(shape.num_layers)]
        self.norm = weights.vector("norm", shape.width)
        tied = settings.flag(None, "tie_word_embeddings", default=False)
        self.head, self.unembedding = weights.head(embedding, tied)
        weights.finish()

    def __call__(self, batch: Batch, cache: Any) -> Logits:
        ops, eps, head_dim = self.ops, self.shape.norm_eps, self.shape.head_dim
        x = ops.embed(self.embedding, batch.token_ids)
        for index, layer in enumerate(self.blocks):
            x = batch.site("resid_pre", index, x)
            h = batch.site("attn_in", index, ops.rms_norm(x, layer.attention_norm, eps))
            q, k, v = ops.linears(h, layer.query, layer.key, layer.value)
            q = ops.rope(q, batch.positions, self.rope, head_dim)
            k = ops.rope(k, batch.positions, self.rope, head_dim)
            q, k, v = batch.site("q", index, q), batch.site("k", index, k), batch.site("v", index, v)
            h = ops.attention(q, k, v, cache, index, batch, self.attention_scales[index])
            h = batch.site("z", index, h)
            if index == len(self.blocks) - 1:  # other rows leave only their K and V behind
                x, h = ops.rows(x, batch.logit_rows), ops.rows(h, batch.logit_rows)
            h = batch.site("attn_out", index, ops.linear(h, layer.output))
            x = batch.site("resid_mid", index, ops.add(x, h))
            h = batch.site("mlp_in", index, ops.rms_norm(x, layer.mlp_norm, eps))
            h = batch.site("mlp_out", index, ops.gated_mlp(h, layer.gate, layer.up, layer.down, "silu"))
            x = batch.site("resid_post", index, ops.add(x, h))
        x = batch.site("final", len(self.blocks), self.final_norm(x))
        return ops.logits(x, self.head, batch)

    def final_norm(self, x: Float32) -> Float32:
        return self.ops.rms_norm(x, self.norm, self.shape.norm_eps)


def _layer(weights: Weights, shape: DecoderShape, index: int) -> Layer:
    width, mlp_width = shape.width, shape.mlp_width
    return Layer(
        attention_norm=weights.vector("attention_norm", width, index),
        **weights.query_key_value(shape.query_width, shape.kv_width, width, index, bias=True),
        output=weights.matrix("attention_output", width, shape.query_width, index),
        mlp_norm=weights.vector("mlp_norm", width, index),
        gate=weights.matrix("gate", mlp_width, width, index),
        up=weights.matrix("up", mlp_width, width, index),
        down=weights.matrix("down", width, mlp_width, index),
    )


# What a key means that a config.json leaves out: transformers' Qwen2Config and Qwen3Config.
HUB_DEFAULTS: dict[str, Any] = {"rms_norm_eps": 1e-6, "max_window_layers": 28}


def qwen_windows(settings: Settings, num_layers: int) -> list[int | None]:
    """The windows of Qwen2's and Qwen3's layers: none, unless config.json says `use_sliding_window`; then
    in the layers that it names, or from number `max_window_layers` on."""
    for name in ("attention.sliding_window", "attention.sliding_window_pattern", "attention.scale"):
        if settings.raw(name, None) is not None:
            raise settings.unsupported(settings.key(name, None), "is not supported for this architecture")
    window = None
    if settings.flag(None, "use_sliding_window", default=False):
        window = settings.integer(None, "sliding_window", high=MAX_CONTEXT)
    layer_types = settings.raw(None, "layer_types")
    if layer_types is not None:
        return layer_windows(settings, num_layers, window, layer_types)
    first = settings.integer(None, "max_window_layers", low=0, high=MAX_LAYERS, default=num_layers)
    return [window if index >= first else None for index in range(num_layers)]
