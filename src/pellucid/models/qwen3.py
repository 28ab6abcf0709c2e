"""Qwen3 (dense): a Llama whose query and key heads are normed before rotation, with a head size of its own.

Yang et al. 2025, arXiv 2505.09388.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pellucid.models.base import Checkpoint, models
from pellucid.models.config import DecoderShape, Settings, decoder_shape
from pellucid.models.qwen2 import HUB_DEFAULTS, qwen_windows
from pellucid.models.rope import rotation
from pellucid.models.weights import DECODER, Weights
from pellucid.ops.base import Ops
from pellucid.types import Batch, Float32, LayerSpec, Logits

NAMES = DECODER | {
    "query_norm": ("blk.{}.attn_q_norm", "layers.{}.self_attn.q_norm"),
    "key_norm": ("blk.{}.attn_k_norm", "layers.{}.self_attn.k_norm"),
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
    mlp_norm: Float32  # [width]
    gate: Any  # [mlp_width, width]
    up: Any  # [mlp_width, width]
    down: Any  # [width, mlp_width]


@models.register("qwen3")
class Qwen3:
    TINY = {  # noqa: RUF012
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 320,
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "hidden_act": "silu",
        "attention_bias": False,
        "max_position_embeddings": 1024,
        "max_window_layers": 3,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    }

    architecture = "qwen3"

    @classmethod
    def load(cls, checkpoint: Checkpoint, ops: Ops) -> Qwen3:
        """Errors: ModelFileError for a setting or tensor that is missing or wrong, UnsupportedModelError
        for a feature that is not run."""
        settings = Settings(checkpoint, hub_defaults=HUB_DEFAULTS | {"head_dim": 128})
        return cls(settings, Weights(checkpoint, ops, NAMES), ops)

    def __init__(self, settings: Settings, weights: Weights, ops: Ops) -> None:
        shape = decoder_shape(settings)
        settings.choice(None, "hidden_act", {"silu": "silu", "swish": "silu"}, default="silu")
        bias = None if settings.is_gguf else settings.flag(None, "attention_bias", default=False)
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
        self.blocks = [_layer(weights, shape, index, bias) for index in range(shape.num_layers)]
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
            q = ops.rope(ops.rms_norm(q, layer.query_norm, eps), batch.positions, self.rope, head_dim)
            k = ops.rope(ops.rms_norm(k, layer.key_norm, eps), batch.positions, self.rope, head_dim)
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


def _layer(weights: Weights, shape: DecoderShape, index: int, bias: bool | None) -> Layer:
    width, mlp_width = shape.width, shape.mlp_width
    return Layer(
        attention_norm=weights.vector("attention_norm", width, index),
        **weights.query_key_value(shape.query_width, shape.kv_width, width, index, bias=bias),
        query_norm=weights.vector("query_norm", shape.head_dim, index),
        key_norm=weights.vector("key_norm", shape.head_dim, index),
        output=weights.matrix("attention_output", width, shape.query_width, index, bias=bias),
        mlp_norm=weights.vector("mlp_norm", width, index),
        gate=weights.matrix("gate", mlp_width, width, index),
        up=weights.matrix("up", mlp_width, width, index),
        down=weights.matrix("down", width, mlp_width, index),
    )
