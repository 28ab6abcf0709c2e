"""guidance_scale: away from what another prompt would say.

Classifier-free guidance for language models: Sanchez et al. 2023, arXiv 2306.17806.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid import _native
from pellucid.errors import UsageError
from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.types import Float32


@samplers.register("guidance")
@stage
class Guidance:
    """u + scale * (c - u), c being the log-probabilities after the prompt and u those after the negative prompt, each
    followed by the output so far. The logits behind u are those of a second sequence (`Step.companion_logits`)."""

    order: ClassVar[int] = 10
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "all"

    guidance_scale: float = parameter(
        1.0,
        "float",
        "above 1, tokens are preferred that the prompt makes more probable than negative_prompt does; 1: off",
        minimum=-100.0,
        maximum=100.0,
    )
    negative_prompt: str | tuple[int, ...] | None = parameter(
        None,
        "prompt",
        "what to be guided away from, a text or token ids; None: the last token of the prompt alone",
        optional=True,
        modifies=("guidance_scale",),
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.guidance_scale == 1.0:
            return logits
        other = step.companion_logits
        if other is None:
            raise UsageError(
                f"guidance_scale={self.guidance_scale:g} needs the logits after the negative prompt: use generate, "
                "stream, chat, search or beams, which compute them"
            )
        guided = guide(logits, other, self.guidance_scale)
        np.copyto(logits, guided, where=logits > -np.inf)
        return logits


def guide(logits: Float32, other: Float32, scale: float) -> Float32:
    """Float64 throughout, rounded once; -inf in `other` counts as its lowest finite value, since a token that only
    the prompt allows would otherwise be infinitely preferred."""
    conditional = logits.astype(np.float64) - _native.log_normalizer(logits)
    finite = other > -np.inf
    unconditional = other.astype(np.float64) - _native.log_normalizer(other)
    if not finite.all():
        unconditional[~finite] = unconditional[finite].min()
    found: Float32 = (unconditional + scale * (conditional - unconditional)).astype(np.float32)
    return found
