"""Direct logit attribution: a logit as the sum of what each component wrote into the residual stream.

The scale of the final norm is held at its value of this row; then the logit is linear in the stream, and the stream is
the sum of the embedding and of what each attention head and each MLP added (Elhage et al. 2021, "A Mathematical
Framework for Transformer Circuits"; TransformerLens calls it logit_attrs). What the head's rounding of its input to
int8 (quantised models) and float32 sums leave over is a component of its own, `rounding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.glass.captured import Captured
from pellucid.glass.flow import Capture
from pellucid.models.base import Model
from pellucid.types import Float32

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Attribution:
    """names and contributions, float64 [components]; they sum to `logit` (with `against`: to the difference of the two
    logits). names: "embed", "attention 3" or "attention 3.7" (layer.head) and, where the output projection has one,
    "attention 3 bias", "mlp 3", "norm bias" (layer norms), "rounding"."""

    position: int
    token_id: int
    against: int | None
    logit: float
    names: tuple[str, ...]
    contributions: Float64

    def __repr__(self) -> str:
        against = "" if self.against is None else f" less that of {self.against}"
        return f"Attribution(logit {self.logit:.4f} of token {self.token_id}{against}, {len(self.names)} components)"

    def __str__(self) -> str:
        shown = [*self.top(10), ("all", self.logit)]
        return "\n".join(f"{name:<20} {value:+9.4f}" for name, value in shown)

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """The k components of the largest magnitude, largest first."""
        order = np.argsort(-np.abs(self.contributions), kind="stable")[:k]
        return [(self.names[i], float(self.contributions[i])) for i in order]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "position": self.position,
            "token_id": self.token_id,
            "against": self.against,
            "logit": self.logit,
            "components": dict(zip(self.names, self.contributions.tolist(), strict=True)),
        }


def attribution_capture(num_layers: int, position: int, heads: bool) -> Capture:
    """What `attribute` needs, at one position."""
    every = tuple(range(num_layers))
    layers = {"resid_pre": (0,), "resid_post": (num_layers - 1,), "attn_out": every, "mlp_out": every}
    if heads:
        layers["z"] = every
    return Capture((*layers, "final"), layers, (position, position + 1))


def attribute(
    model: Model, captured: Captured, token: int, against: int | None, logits: Float32, heads: bool
) -> Attribution:
    """captured: one position, of `attribution_capture`; logits: float32 [vocabulary] there."""
    u = _direction(model, token) - (0.0 if against is None else _direction(model, against))
    scale, bias, centred = frozen_norm(model, captured.at("resid_post", -1)[0], captured.at("final", 0)[0])
    names, parts = ["embed"], [captured.at("resid_pre", 0)[0].astype(np.float64)]
    for layer in range(len(model.layers)):
        attention = captured.at("attn_out", layer)[0]
        if heads:
            split, rest = head_outputs(model, layer, captured.at("z", layer)[0], attention)
            names += [f"attention {layer}.{head}" for head in range(len(split))]
            parts += list(split)
            if rest.any():
                names.append(f"attention {layer} bias")
                parts.append(rest)
        else:
            names.append(f"attention {layer}")
            parts.append(attention.astype(np.float64))
        names.append(f"mlp {layer}")
        parts.append(captured.at("mlp_out", layer)[0].astype(np.float64))
    stack = np.stack(parts)
    if centred:
        stack = stack - stack.mean(axis=1, keepdims=True)
    found = (stack * scale) @ u
    if centred:
        names.append("norm bias")
        found = np.append(found, bias @ u)
    logit = float(logits[token]) - (0.0 if against is None else float(logits[against]))
    names.append("rounding")
    found = np.append(found, logit - found.sum())
    return Attribution(int(captured.positions[0]), token, against, logit, tuple(names), found)


def _direction(model: Model, token: int) -> Float64:
    """The head's weights of a token, float64 [width]."""
    found: Float64 = model.ops.embed(model.unembedding, np.array([token], np.int32))[0].astype(np.float64)
    return found


def frozen_norm(model: Model, x: Float32, y: Float32) -> tuple[Float64, Float64, bool]:
    """The final norm as it acted on the row x [width], with result y: (factor of each value, bias, whether the mean is
    taken out first). Its one scale is read off x and y."""
    weight = np.asarray(getattr(model.norm, "weight", model.norm), np.float64)
    bias = getattr(model.norm, "bias", None)
    centred = bias is not None
    offset = np.zeros(len(x)) if bias is None else bias.astype(np.float64)
    return (
        _scale(x.astype(np.float64) - (x.mean(dtype=np.float64) if centred else 0.0), y - offset, weight),
        offset,
        centred,
    )


def _scale(x: Float64, y: Float64, weight: Float64) -> Float64:
    """weight * r, where y = x * weight * r: r is one number, found by least squares."""
    through = x * weight
    norm = float(through @ through)
    return weight * (float(through @ y) / norm if norm > 0 else 0.0)


def head_outputs(model: Model, layer: int, z: Float32, attn_out: Float32) -> tuple[Float64, Float64]:
    """What each head adds to the stream, float64 [heads, width], and what the projection's bias adds [width]. Where the
    block norms its output once more (Gemma), that norm's scale is held at its value of this row."""
    block, head_dim = model.blocks[layer], model.layers[layer].head_dim
    heads = len(z) // head_dim
    apart = np.zeros(
        (heads + 1, len(z)), np.float32
    )  # each head alone; the last row, of zeros, gives the bias
    for head in range(heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        apart[head, part] = z[part]
    out = model.ops.linear(apart, block.output).astype(np.float64)
    split, bias = out[:-1] - out[-1], out[-1]
    weight = getattr(block, "attention_post_norm", None)
    if weight is not None:
        scale = _scale(split.sum(axis=0) + bias, attn_out.astype(np.float64), np.asarray(weight, np.float64))
        split, bias = split * scale, bias * scale
    return split, bias
