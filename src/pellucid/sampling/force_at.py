"""force_at: tokens that must be chosen at given places of the output."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.types import Float32


@samplers.register("force_at")
@stage
class ForceAt:
    """The last word: whatever the stages before it left, at such a place one token alone can be chosen."""

    order: ClassVar[int] = 990
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    force_at: tuple[tuple[int, int], ...] = parameter(
        (), "placed", "tokens that must be chosen: place in the output, from 0 -> token id"
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        token = dict(self.force_at).get(step.num_generated)
        if token is not None:
            logits = np.full_like(logits, -np.inf)
            logits[token] = 0.0
        return logits
