"""Llama 1, 2 and 3.x, and models of the same shape: Mistral, SmolLM2, TinyLlama.

Touvron et al. 2023 (arXiv 2302.13971, 2307.09288), Grattafiori et al. 2024 (2407.21783), Jiang et al. 2023
(2310.06825). GGUF files of this architecture hold the rows of query and key permuted so that rotation pairs
are neighbours (2i, 2i + 1); safetensors hold them as (i, i + head_dim / 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pellucid.models.base import Checkpoint, models
from pellucid.models.config import MAX_CONTEXT, DecoderShape, Settings, decoder_shape, layer_windows
from pellucid.models.rope import rotation
from pellucid.models.weights import DECODER, Weights
from pellucid.ops.base import Ops
from pellucid.types import Batch, Float32, LayerSpec, Logits

# What a key means that a config.json leaves out: transformers' LlamaConfig and MistralConfig.
HUB_DEFAULTS: dict[bool, dict[str, Any]] = {  # by: is it Mistral?
    False: {"rms_norm_eps": 1e-6},
    True: {"rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096},
}


@dataclass(frozen=True)
class Layer:
    attention_norm: Float32  # [width]
    query: Any  # [heads * head_dim, width]
    key: Any  # [kv_heads * head_dim, width]
    value: Any  # [kv_heads * head_dim, width]
    output: Any  # [width, heads * head_dim]
    mlp_norm: Float32  # [width]
    gate: Any  # [mlp_width, width]
    up: Any  # [mlp_width, width]
    down: Any  # [width, mlp_width]


@models.register("llama")
class Llama:
    TINY = {  # noqa: RUF012
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 320,
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
    }

    architecture = "llama"

    @classmethod
    def load(cls, checkpoint: Checkpoint, ops: Ops) -> Llama:
        """Errors: ModelFileError for a setting or tensor that is missing or wrong, UnsupportedModelError
        for a feature that is not run."""
        settings = Settings(
            checkpoint, hub_defaults=HUB_DEFAULTS[checkpoint.config.get("model_type") == "mistral"]
        )
        return cls(settings, Weights(checkpoint, ops, DECODER), ops)

    def __init__(self, settings: Settings, weights: Weights, ops: Ops) -> None:
        shape = decoder_shape(settings)
        settings.choice(None, "hidden_act", {"silu": "silu", "swish": "silu"}, default="silu")
        embedding = weights.embedding(shape.width)
        self.ops, self.shape, self.interleaved = ops, shape, settings.is_gguf
        self.width = shape.width
        self.vocabulary_size = embedding.shape[0]
        windows = _windows(settings, shape.num_layers)
        self.layers = [LayerSpec(shape.num_kv_heads, shape.head_dim, window) for window in windows]
        turn = rotation(settings, shape.head_dim, _frequency_factors(weights, shape.head_dim))
        self.context_length = max(shape.context_length, turn.context_length)
        self.rope = ops.rope_table(turn.inv_freq, self.context_length, turn.scale)
        self.attention_scales = [1.0 / math.sqrt(shape.head_dim)] * shape.num_layers
        self.embedding = ops.embedding(embedding)
        biases = _biases(settings)
        self.blocks = [_layer(weights, shape, index, *biases) for index in range(shape.num_layers)]
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
            q = ops.rope(q, batch.positions, self.rope, head_dim, self.interleaved)
            k = ops.rope(k, batch.positions, self.rope, head_dim, self.interleaved)
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


def _layer(
    weights: Weights, shape: DecoderShape, index: int, attention_bias: bool | None, mlp_bias: bool | None
) -> Layer:
    width, mlp_width = shape.width, shape.mlp_width
    return Layer(
        attention_norm=weights.vector("attention_norm", width, index),
        **weights.query_key_value(shape.query_width, shape.kv_width, width, index, bias=attention_bias),
        output=weights.matrix("attention_output", width, shape.query_width, index, bias=attention_bias),
        mlp_norm=weights.vector("mlp_norm", width, index),
        gate=weights.matrix("gate", mlp_width, width, index, bias=mlp_bias),
        up=weights.matrix("up", mlp_width, width, index, bias=mlp_bias),
        down=weights.matrix("down", width, mlp_width, index, bias=mlp_bias),
    )


def _biases(settings: Settings) -> tuple[bool | None, bool | None]:
    """Whether (attention, MLP) have biases; GGUF has no setting: its tensors say."""
    if settings.is_gguf:
        return None, None
    return settings.flag(None, "attention_bias", default=False), settings.flag(
        None, "mlp_bias", default=False
    )


def _windows(settings: Settings, num_layers: int) -> list[int | None]:
    """Mistral's sliding window, the same in all layers; none for Llama."""
    window = settings.integer(
        "attention.sliding_window", "sliding_window", low=0, high=MAX_CONTEXT, default=None
    )
    if window and not settings.is_gguf and settings.raw(None, "model_type") != "mistral":
        raise settings.unsupported("sliding_window", f"{window} has no meaning for a Llama model")
    for name in ("attention.sliding_window_pattern", "attention.scale"):
        if settings.raw(name, None) is not None:
            raise settings.unsupported(settings.key(name, None), "is not supported for this architecture")
    windows = [window or None] * num_layers
    layer_types = settings.raw(None, "layer_types")
    if layer_types is not None and layer_windows(settings, num_layers, windows[0], layer_types) != windows:
        raise settings.unsupported(
            "layer_types", "several kinds of layers have no meaning for this architecture"
        )
    return windows


def _frequency_factors(weights: Weights, head_dim: int) -> Float32 | None:
    """What divides the rotation's frequencies, [head_dim / 2]: how GGUF states Llama 3's scaling."""
    factors = weights.named("rope_freqs.weight", head_dim // 2)
    return None if factors is None else factors.dequantize()
