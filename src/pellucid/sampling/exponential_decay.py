"""exponential_decay: the end of the text grows more probable with each token (transformers' exponential decay
length penalty)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.types import Float32


@samplers.register("exponential_decay")
@stage
class ExponentialDecay:
    """From the (start + 1)-th further token on, the logit l of every token that would end the text becomes
    l + |l| (factor^k - 1), k = the tokens of the output beyond start."""

    order: ClassVar[int] = 310
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    exponential_decay_factor: float = parameter(
        1.0,
        "float",
        "raises the logits of end-of-text by this factor for each token after exponential_decay_start; 1: off",
        above=0.0,
        maximum=100.0,
    )
    exponential_decay_start: int = parameter(
        0,
        "int",
        "tokens of the output before exponential_decay_factor acts",
        minimum=0,
        maximum=2**31 - 1,
        modifies=("exponential_decay_factor",),
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        beyond = step.num_generated - self.exponential_decay_start
        if beyond <= 0 or self.exponential_decay_factor == 1.0:
            return logits
        power = 1.0
        for _ in range(beyond):  # multiplications alone: the same bits everywhere
            power *= self.exponential_decay_factor
            if not 1e-30 < power < 1e30:
                break
        ids = step.stop_ids[logits[step.stop_ids] > -np.inf]
        values = logits[ids]
        logits[ids] = np.minimum(values + np.abs(values) * np.float32(power - 1.0), np.float32(1e37))
        return logits
