"""Inverse frequencies of rotary position embedding, from a checkpoint's settings.

Su et al. 2021, arXiv 2104.09864: pair i of a head turns by position * theta^(-2i / head_dim). Scalings
stretch the angles for longer contexts: "linear" divides them all by a factor (Chen et al. 2023, arXiv
2306.15595), "llama3" only the slow ones (Llama 3.1), "yarn" the slow ones, too, by another rule, and it
lengthens queries and keys (Peng et al. 2023, arXiv 2309.00071). Scalings that depend on the length at run
time ("dynamic") would break the rule that a step's numbers depend on tokens, positions and model alone, and
are refused, like those that we do not run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.models.config import MAX_CONTEXT, Settings
from pellucid.types import Float32

MAX_THETA = 1e12


@dataclass(frozen=True)
class Rotation:
    """What a rotation table is made of."""

    inv_freq: Float32  # [head_dim / 2] radians a position, computed in float64 and rounded once
    scale: float = 1.0  # of cosine and sine, so of both query and key
    context_length: int = 0  # what the scaling stretches the context to; 0: it does not say


@dataclass(frozen=True)
class _Scaled:
    """A rotation before it is rounded."""

    inv_freq: NDArray[np.float64]
    scale: float = 1.0
    context_length: float = 0.0

    def rounded(self) -> Rotation:
        return Rotation(self.inv_freq.astype(np.float32), self.scale, round(self.context_length))


def rotation(
    settings: Settings,
    head_dim: int,
    factors: Float32 | None = None,
    *,
    layer_type: str | None = None,
    default_theta: float = 10000.0,
) -> Rotation:
    """The rotation that the settings ask for.

    factors: GGUF's `rope_freqs.weight` [head_dim / 2], which divides the frequencies (how GGUF states
    "llama3"). layer_type: the entry of config.json's `rope_parameters` where layers differ.
    """
    if settings.is_gguf:
        return _gguf_rotation(settings, head_dim, factors, default_theta)
    key, parameters = hub_parameters(settings, layer_type)
    theta = settings.checked_number(
        f"{key}.rope_theta", parameters.get("rope_theta", default_theta), MAX_THETA
    )
    return _scaled(settings, key, parameters, plain_frequencies(theta, head_dim), theta).rounded()


def _gguf_rotation(
    settings: Settings, head_dim: int, factors: Float32 | None, default_theta: float
) -> Rotation:
    theta = settings.number("rope.freq_base", None, high=MAX_THETA, default=default_theta)
    inv_freq = plain_frequencies(theta, head_dim)
    if factors is not None:
        if not (np.isfinite(factors).all() and (factors > 0).all()):
            raise settings.error("rope_freqs.weight", "expected finite numbers above 0")
        inv_freq = inv_freq / factors
    if settings.raw("rope.scaling.type", None) != "yarn":
        return _Scaled(inv_freq / gguf_scale(settings)).rounded()
    stated = {hub: settings.raw(f"rope.scaling.{name}", None) for name, hub in _GGUF_YARN.items()}
    parameters = {name: value for name, value in stated.items() if value is not None}
    return _yarn(settings, settings.key("rope.scaling", None), parameters, inv_freq, theta).rounded()


# GGUF's names under `rope.scaling.` for config.json's. `yarn_attn_factor` is what the converter writes for
# `attention_factor`: the whole factor of cosine and sine.
_GGUF_YARN = {
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
    "yarn_attn_factor": "attention_factor",
}


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
    settings: Settings, key: str, parameters: Mapping[str, Any], inv_freq: NDArray[np.float64], theta: float
) -> _Scaled:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise settings.unsupported(
            f"{key}.partial_rotary_factor", "rotating only a part of each head is not supported"
        )

    def number(name: str, high: float = MAX_CONTEXT) -> float:
        return settings.checked_number(f"{key}.{name}", parameters.get(name), high)

    if kind == "default":
        return _Scaled(inv_freq)
    if kind == "linear":
        return _Scaled(inv_freq / number("factor"))
    if kind == "yarn":
        return _yarn(settings, key, parameters, inv_freq, theta)
    if kind == "llama3":
        low, high = number("low_freq_factor"), number("high_freq_factor")
        if high <= low:
            raise settings.error(
                f"{key}.high_freq_factor", f"expected more than low_freq_factor {low:g}, found {high:g}"
            )
        context = number("original_max_position_embeddings")
        return _Scaled(llama3_scaled(inv_freq, number("factor"), low, high, context))
    raise _unsupported_kind(settings, f"{key}.rope_type", kind)


def llama3_scaled(
    inv_freq: NDArray[np.float64], factor: float, low: float, high: float, original_context: float
) -> NDArray[np.float64]:
    """Frequencies that turn fewer than `low` times in the original context are divided by `factor`, those
    that turn more than `high` times stay, and those between are interpolated by their number of turns."""
    turns = original_context * inv_freq / (2 * math.pi)
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return inv_freq * (keep + (1.0 - keep) / factor)


def _yarn(
    settings: Settings, key: str, parameters: Mapping[str, Any], inv_freq: NDArray[np.float64], theta: float
) -> _Scaled:
    """YaRN by config.json's parameters, whose absence means what it means in transformers: a first context
    of all positions that the model states, 32 and 1 turns, and a scale of 0.1 ln(factor) + 1."""

    def number(name: str, default: Any = None) -> float:
        value = parameters.get(name)
        return settings.checked_number(f"{key}.{name}", default if value is None else value, MAX_CONTEXT)

    factor = number("factor")
    stated = settings.integer("context_length", "max_position_embeddings", high=MAX_CONTEXT)
    context = number("original_max_position_embeddings", stated)
    fast, slow = number("beta_fast", 32), number("beta_slow", 1)
    if fast <= slow or theta <= 1:
        raise settings.error(
            f"{key}.beta_fast", f"expected more than beta_slow {slow:g} and a base above 1, found {fast:g}"
        )
    truncate = parameters.get("truncate", True)
    if not isinstance(truncate, bool):
        raise settings.error(f"{key}.truncate", f"expected true or false, found {str(truncate)[:40]!r}")
    scaled = yarn_scaled(inv_freq, factor, fast, slow, context, theta, truncate=truncate)
    scale = _yarn_scale(parameters, factor, number)
    return replace(_Scaled(scaled), scale=scale, context_length=min(context * factor, MAX_CONTEXT))


def _yarn_scale(parameters: Mapping[str, Any], factor: float, number: Any) -> float:
    """The factor of cosine and sine: as stated, or by the logarithm of the stretch."""
    if parameters.get("attention_factor") is not None:
        return float(number("attention_factor"))
    stretch = 0.1 * math.log(max(factor, 1.0))
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return float((stretch * number("mscale") + 1) / (stretch * number("mscale_all_dim") + 1))
    return stretch + 1


def yarn_scaled(
    inv_freq: NDArray[np.float64],
    factor: float,
    fast: float,
    slow: float,
    original_context: float,
    theta: float,
    *,
    truncate: bool,
) -> NDArray[np.float64]:
    """Frequencies up to the pair that turns `fast` times in the original context stay, those from the pair
    that turns `slow` times on are divided by `factor`, and those between are interpolated by their index.
    truncate: the two indices are rounded outwards to whole numbers."""
    head_dim = 2 * len(inv_freq)

    def pair(turns: float) -> float:
        return head_dim * math.log(original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(fast), pair(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    high = high + 0.001 if high == low else high  # a step; transformers' and llama.cpp's guard
    divided: NDArray[np.float64] = np.clip((np.arange(len(inv_freq)) - low) / (high - low), 0.0, 1.0)
    return inv_freq * (1.0 - divided) + inv_freq * (divided / factor)


def _unsupported_kind(settings: Settings, key: str, kind: Any) -> Exception:
    return settings.unsupported(
        key, f"{str(kind)[:40]!r} is not supported; pellucid runs default, linear, llama3, yarn"
    )
