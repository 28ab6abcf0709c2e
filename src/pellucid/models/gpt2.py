"""GPT-2: learned positions, LayerNorm, one fused projection for query, key and value.

Radford et al. 2019. The Hub's files hold every projection transposed ([inputs, outputs]), with names that
begin with "transformer." or with nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pellucid.models.base import Checkpoint, models
from pellucid.models.config import MAX_CONTEXT, MAX_HEADS, MAX_LAYERS, MAX_MLP_WIDTH, MAX_WIDTH, Settings
from pellucid.models.weights import Weights, transposed
from pellucid.ops.base import Ops
from pellucid.types import Batch, Float32, LayerSpec, Logits
from pellucid.weights.tensor import Tensor

NAMES = {
    "embedding": ("token_embd", "wte"),
    "position": ("position_embd", "wpe"),
    "attention_norm": ("blk.{}.attn_norm", "h.{}.ln_1"),
    "query_key_value": ("blk.{}.attn_qkv", "h.{}.attn.c_attn"),
    "attention_output": ("blk.{}.attn_output", "h.{}.attn.c_proj"),
    "mlp_norm": ("blk.{}.ffn_norm", "h.{}.ln_2"),
    "up": ("blk.{}.ffn_up", "h.{}.mlp.c_fc"),
    "down": ("blk.{}.ffn_down", "h.{}.mlp.c_proj"),
    "norm": ("output_norm", "ln_f"),
}

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


@dataclass(frozen=True)
class Norm:
    weight: Float32  # [width]
    bias: Float32  # [width]


@dataclass(frozen=True)
class Layer:
    attention_norm: Norm
    query: Any  # [width, width], with bias, like all below
    key: Any  # [width, width]
    value: Any  # [width, width]
    output: Any  # [width, width]
    mlp_norm: Norm
    up: Any  # [mlp_width, width]
    down: Any  # [width, mlp_width]


@models.register("gpt2")
class GPT2:
    TINY = {  # noqa: RUF012
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 320,
        "n_positions": 512,
        "n_embd": 96,
        "n_layer": 3,
        "n_head": 3,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }

    architecture = "gpt2"

    @classmethod
    def load(cls, checkpoint: Checkpoint, ops: Ops) -> GPT2:
        """Errors: ModelFileError for a setting or tensor that is missing or wrong, UnsupportedModelError
        for a feature that is not run."""
        return cls(Settings(checkpoint), Weights(checkpoint, ops, NAMES, prefixes=("transformer.", "")), ops)

    def __init__(self, settings: Settings, weights: Weights, ops: Ops) -> None:
        width, num_heads = _width_and_heads(settings)
        num_layers = settings.integer("block_count", "n_layer", high=MAX_LAYERS)
        mlp_width = settings.integer("feed_forward_length", "n_inner", high=MAX_MLP_WIDTH, default=4 * width)
        self.ops, self.width = ops, width
        self.norm_eps = settings.number(
            "attention.layer_norm_epsilon", "layer_norm_epsilon", high=1.0, default=1e-5
        )
        self.activation = settings.choice(None, "activation_function", ACTIVATIONS, default="gelu_new")
        self.context_length = settings.integer("context_length", "n_positions", high=MAX_CONTEXT)
        self.layers = [LayerSpec(num_heads, width // num_heads)] * num_layers
        self.attention_scales = _attention_scales(settings, num_layers, width // num_heads)
        embedding = weights.embedding(width)
        self.vocabulary_size = embedding.shape[0]
        self.embedding = ops.embedding(embedding)
        self.positions = ops.embedding(weights.tensor("position", self.context_length, width))
        self.blocks = [_layer(weights, ops, width, mlp_width, index) for index in range(num_layers)]
        self.norm = _norm(weights, "norm", width)
        tied = settings.flag(None, "tie_word_embeddings", default=True)
        self.head, self.unembedding = weights.head(embedding, tied)
        weights.finish()

    def __call__(self, batch: Batch, cache: Any) -> Logits:
        ops, eps = self.ops, self.norm_eps
        x = ops.add(ops.embed(self.embedding, batch.token_ids), ops.embed(self.positions, batch.positions))
        for index, layer in enumerate(self.blocks):
            x = batch.site("resid_pre", index, x)
            h = ops.layer_norm(x, layer.attention_norm.weight, layer.attention_norm.bias, eps)
            h = batch.site("attn_in", index, h)
            q, k, v = ops.linears(h, layer.query, layer.key, layer.value)
            q, k, v = batch.site("q", index, q), batch.site("k", index, k), batch.site("v", index, v)
            h = ops.attention(q, k, v, cache, index, batch, self.attention_scales[index])
            h = batch.site("z", index, h)
            if index == len(self.blocks) - 1:  # other rows leave only their K and V behind
                x, h = ops.rows(x, batch.logit_rows), ops.rows(h, batch.logit_rows)
            h = batch.site("attn_out", index, ops.linear(h, layer.output))
            x = batch.site("resid_mid", index, ops.add(x, h))
            h = ops.layer_norm(x, layer.mlp_norm.weight, layer.mlp_norm.bias, eps)
            h = batch.site("mlp_in", index, h)
            h = ops.activation(ops.linear(h, layer.up), self.activation)
            h = batch.site("mlp_out", index, ops.linear(h, layer.down))
            x = batch.site("resid_post", index, ops.add(x, h))
        x = batch.site("final", len(self.blocks), self.final_norm(x))
        return ops.logits(x, self.head, batch)

    def final_norm(self, x: Float32) -> Float32:
        return self.ops.layer_norm(x, self.norm.weight, self.norm.bias, self.norm_eps)


def _width_and_heads(settings: Settings) -> tuple[int, int]:
    width = settings.integer("embedding_length", "n_embd", high=MAX_WIDTH)
    num_heads = settings.integer("attention.head_count", "n_head", high=MAX_HEADS)
    if width % num_heads:
        key = settings.key("attention.head_count", "n_head")
        raise settings.error(key, f"a width of {width} cannot be divided among {num_heads} heads")
    for name, expected in (("head_count_kv", num_heads), ("key_length", width // num_heads)):
        found = settings.integer(f"attention.{name}", None, high=MAX_WIDTH, default=expected)
        if found != expected:
            raise settings.unsupported(
                settings.key(f"attention.{name}", None), f"expected {expected}, found {found}"
            )
    return width, num_heads


def _attention_scales(settings: Settings, num_layers: int, head_dim: int) -> list[float]:
    """One factor a layer: 1 / sqrt(head_dim), and 1 / (layer + 1) where the settings ask for it."""
    scale = 1.0 / math.sqrt(head_dim) if settings.flag(None, "scale_attn_weights", default=True) else 1.0
    by_layer = settings.flag(None, "scale_attn_by_inverse_layer_idx", default=False)
    return [scale / (index + 1) if by_layer else scale for index in range(num_layers)]


def _norm(weights: Weights, noun: str, width: int, layer: int | None = None) -> Norm:
    return Norm(weights.vector(noun, width, layer), weights.vector(noun, width, layer, "bias"))


def _layer(weights: Weights, ops: Ops, width: int, mlp_width: int, index: int) -> Layer:
    fused = _projection(weights, "query_key_value", 3 * width, width, index)
    fused_bias = weights.vector("query_key_value", 3 * width, index, "bias")
    query, key, value = (
        ops.matrix(fused.rows(start, start + width), fused_bias[start : start + width])
        for start in range(0, 3 * width, width)
    )

    def projection(noun: str, outputs: int, inputs: int) -> Any:
        bias = weights.vector(noun, outputs, index, "bias")
        return ops.matrix(_projection(weights, noun, outputs, inputs, index), bias)

    return Layer(
        attention_norm=_norm(weights, "attention_norm", width, index),
        query=query,
        key=key,
        value=value,
        output=projection("attention_output", width, width),
        mlp_norm=_norm(weights, "mlp_norm", width, index),
        up=projection("up", mlp_width, width),
        down=projection("down", width, mlp_width),
    )


def _projection(weights: Weights, noun: str, outputs: int, inputs: int, layer: int) -> Tensor:
    """[outputs, inputs], as GGUF has it; the Hub's is turned round."""
    if weights.is_gguf:
        return weights.tensor(noun, outputs, inputs, layer=layer)
    return transposed(weights.tensor(noun, inputs, outputs, layer=layer))
