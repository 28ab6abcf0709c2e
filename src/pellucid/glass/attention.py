"""Attention weights, computed again from the captured queries and keys; rollout over all layers."""

from __future__ import annotations

import numpy as np

from pellucid.errors import UsageError
from pellucid.glass.captured import Captured
from pellucid.glass.flow import Capture
from pellucid.models.base import Model
from pellucid.ops.reference import round_query, round_to_kv_format
from pellucid.types import Float32

ATTENTION_SITES = ("q", "k")


def attention_capture(layers: tuple[int, ...] | None) -> Capture:
    """What `attention_weights` needs."""
    return Capture(ATTENTION_SITES, layers)


def attention_weights(model: Model, captured: Captured, layer: int, kv_format: str) -> Float32:
    """How much each head of a layer takes of each position: float32 [heads, queries, keys], rows sum to 1, zero where
    the mask hides a key. Keys are rounded as the cache holds them; sums are float64, so the weights are those of the
    kernels but for their float32 rounding. UsageError: not every position from 0 on was captured."""
    number = layer % len(model.layers)
    spec = model.layers[number]
    captured.need("attention", dict.fromkeys(ATTENTION_SITES, (number,)))
    check_complete(captured)
    head_dim, kv_heads = spec.head_dim, spec.num_kv_heads
    q, k = captured.at("q", number), captured.at("k", number)
    count = len(k)
    keys = round_to_kv_format(k.reshape(count, kv_heads, head_dim), kv_format).astype(np.float64)
    rounded = round_query(q.reshape(-1, head_dim), kv_format)
    queries = rounded.reshape(count, kv_heads, -1, head_dim)  # heads that share one key head together
    scores = np.einsum("pghd,sgd->ghps", queries, keys) * model.attention_scales[number]
    distance = np.arange(count)[:, None] - np.arange(count)[None]
    hidden = distance < 0 if spec.window is None else (distance < 0) | (distance >= spec.window)
    scores[..., hidden] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    found: Float32 = weights.reshape(-1, count, count).astype(np.float32)
    return found


def rollout(model: Model, captured: Captured, kv_format: str) -> Float32:
    """Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928): the product over the layers of half the mean
    attention of the heads and half the identity. float32 [positions, positions], rows sum to 1."""
    total = np.eye(len(captured))
    for layer in range(len(model.layers)):
        mean = attention_weights(model, captured, layer, kv_format).mean(axis=0, dtype=np.float64)
        total = (0.5 * mean + 0.5 * np.eye(len(mean))) @ total
    return total.astype(np.float32)


def check_complete(captured: Captured) -> None:
    """UsageError: a position between the first of the sequence and the last captured is missing."""
    if captured.positions.tolist() != list(range(len(captured.positions))):
        raise UsageError(
            'attention: expected every position from 0 on; capture with positions="all" and reuse=False'
        )
