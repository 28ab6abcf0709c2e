"""Inverse frequencies of rotary position embedding, from a checkpoint's settings.

Su et al. 2021, arXiv 2104.09864: pair i of a head turns by position * theta^(-2i / head_dim). Scalings
stretch the angles for longer contexts: "linear" divides them all by a factor (Chen et al. 2023, arXiv
2306.15595), "llama3" only the slow ones (Llama 3.1). Scalings that depend on the length at run time
("dynamic") would break the rule that a step's numbers depend on tokens, positions and model alone, and are
refused, like those that we do not run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.models.config import MAX_CONTEXT, Settings
from pellucid.types import Float32

MAX_THETA = 1e12


def inverse_frequencies(
    settings: Settings,
    head_dim: int,
    factors: Float32 | None = None,
    *,
    layer_type: str | None = None,
    default_theta: float = 10000.0,
) -> Float32:
    """float32 [head_dim / 2], computed in float64 and rounded once.

    factors: GGUF's `rope_freqs.weight` [head_dim / 2], which divides them (how GGUF states "llama3").
    layer_type: the entry of config.json's `rope_parameters` where layers differ.
    """
    if settings.is_gguf:
        theta = settings.number("rope.freq_base", None, high=MAX_THETA, default=default_theta)
        inv_freq = plain_frequencies(theta, head_dim) / gguf_scale(settings)
        if factors is not None:
            if not (np.isfinite(factors).all() and (factors > 0).all()):
                raise settings.error("rope_freqs.weight", "expected finite numbers above 0")
            inv_freq = inv_freq / factors
        return inv_freq.astype(np.float32)
    key, parameters = hub_parameters(settings, layer_type)
    theta = settings.checked_number(
        f"{key}.rope_theta", parameters.get("rope_theta", default_theta), MAX_THETA
    )
    return _scaled(settings, key, parameters, plain_frequencies(theta, head_dim)).astype(np.float32)


def plain_frequencies(theta: float, head_dim: int) -> NDArray[np.float64]:
    return np.power(theta, -np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)


def gguf_scale(settings: Settings) -> float:
    """GGUF: the factor of linear scaling; 1 where there is none."""
    kind = settings.raw("rope.scaling.type", None) or "linear"  # llama.cpp's meaning of absence
    factor = settings.raw("rope.scaling.factor", None)
    key = settings.key("rope.scaling.factor", None)
    if factor is None:
        factor, key = settings.raw("rope.scale_linear", None), settings.key("rope.scale_linear", None)
    if kind == "none" or factor is None or factor == 0:
        if kind not in ("none", "linear"):
            raise _unsupported_kind(settings, settings.key("rope.scaling.type", None), kind)
        return 1.0
    if kind != "linear":
        raise _unsupported_kind(settings, settings.key("rope.scaling.type", None), kind)
    return settings.checked_number(key, factor, MAX_CONTEXT)


def hub_parameters(settings: Settings, layer_type: str | None = None) -> tuple[str, dict[str, Any]]:
    """config.json: (where they stand, the parameters), from `rope_parameters` (transformers 5; for each
    layer type where layers differ) or from `rope_scaling` with `rope_theta` beside it (before)."""
    key, found = "rope_parameters", settings.raw(None, "rope_parameters")
    if found is None:
        key, found = "rope_scaling", settings.raw(None, "rope_scaling") or {}
    if isinstance(found, dict) and any(isinstance(value, dict) for value in found.values()):
        if (
            layer_type is None
            or set(found) - {"full_attention", "sliding_attention"}
            or layer_type not in found
        ):
            raise settings.unsupported(
                key, f"rotations for {', '.join(map(str, found))} are not supported here"
            )
        key, found = f"{key}.{layer_type}", found[layer_type]
    if not isinstance(found, dict):
        raise settings.error(key, f"expected an object, found {type(found).__name__}")
    theta = settings.raw(None, "rope_theta")
    return key, found if theta is None or "rope_theta" in found else {**found, "rope_theta": theta}


def _scaled(
    settings: Settings, key: str, parameters: Mapping[str, Any], inv_freq: NDArray[np.float64]
) -> NDArray[np.float64]:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise settings.unsupported(
            f"{key}.partial_rotary_factor", "rotating only a part of each head is not supported"
        )

    def number(name: str, high: float = MAX_CONTEXT) -> float:
        return settings.checked_number(f"{key}.{name}", parameters.get(name), high)

    if kind == "default":
        return inv_freq
    if kind == "linear":
        return inv_freq / number("factor")
    if kind == "llama3":
        low, high = number("low_freq_factor"), number("high_freq_factor")
        if high <= low:
            raise settings.error(
                f"{key}.high_freq_factor", f"expected more than low_freq_factor {low:g}, found {high:g}"
            )
        return llama3_scaled(
            inv_freq, number("factor"), low, high, number("original_max_position_embeddings")
        )
    raise _unsupported_kind(settings, f"{key}.rope_type", kind)


def llama3_scaled(
    inv_freq: NDArray[np.float64], factor: float, low: float, high: float, original_context: float
) -> NDArray[np.float64]:
    """Frequencies that turn fewer than `low` times in the original context are divided by `factor`, those
    that turn more than `high` times stay, and those between are interpolated by their number of turns."""
    turns = original_context * inv_freq / (2 * math.pi)
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return inv_freq * (keep + (1.0 - keep) / factor)


def _unsupported_kind(settings: Settings, key: str, kind: Any) -> Exception:
    return settings.unsupported(
        key, f"{str(kind)[:40]!r} is not supported; pellucid runs default, linear, llama3"
    )
