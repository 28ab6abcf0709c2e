"""temperature: logits divided by T before the draw; 0 is greedy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.errors import UsageError
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.types import Float32

LEAST = 1e-4  # below it a logit of a few thousand, divided, comes near the end of float32's useful range


@samplers.register("temperature")
@stage
class Temperature:
    """At 0, the default, nothing is divided: the draw takes the largest logit and adds no noise."""

    order: ClassVar[int] = 500
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "token"

    temperature: float = parameter(
        0.0,
        "float",
        "0: always the most probable token (greedy); 1: the model's own distribution; above: flatter",
        minimum=0.0,
        maximum=100.0,
    )
    dynatemp_range: float = shared(0.0)

    def __post_init__(self) -> None:
        if 0 < self.temperature < LEAST:
            raise UsageError(
                f"temperature: expected 0 (greedy) or at least {LEAST}, got {self.temperature!r}"
            )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.temperature not in (0.0, 1.0) and self.dynatemp_range == 0:  # else dynatemp.py divides
            np.divide(logits, np.float32(self.temperature), out=logits)
        return logits
