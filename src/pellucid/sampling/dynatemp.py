"""dynatemp: a temperature that follows the entropy (llama.cpp, "temp-ext")."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid import _native
from pellucid.errors import UsageError
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.sampling.temperature import LEAST
from pellucid.types import Float32


@samplers.register("dynatemp")
@stage
class DynamicTemperature:
    """T = low + (high - low) * (entropy / log(tokens left))^exponent, with low and high the temperature minus (at
    least 0) and plus the range. It takes the place of the fixed temperature. Under 1e-4 only the first token stays.
    """

    order: ClassVar[int] = 490
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "all"

    dynatemp_range: float = parameter(
        0.0,
        "float",
        "the temperature varies by this much about `temperature`, lower where the model is sure; 0: off",
        minimum=0.0,
        maximum=100.0,
    )
    dynatemp_exponent: float = parameter(
        1.0,
        "float",
        "how the entropy, as a share of its maximum, maps to the range",
        above=0.0,
        maximum=100.0,
        modifies=("dynatemp_range",),
    )
    temperature: float = shared(1.0)

    def __post_init__(self) -> None:
        if self.dynatemp_range > 0 and self.temperature == 0:
            raise UsageError(
                "dynatemp_range varies a temperature, and temperature=0 is greedy; set a temperature above 0"
            )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        left = int(np.count_nonzero(logits > -np.inf))
        if self.dynatemp_range <= 0.0 or left < 2:
            return logits
        share = _native.entropy(logits)[1] / _native.log(float(left))
        low, high = max(0.0, self.temperature - self.dynatemp_range), self.temperature + self.dynatemp_range
        power = (
            _native.exp(max(-600.0, self.dynatemp_exponent * _native.log(share))) if share > 1e-290 else 0.0
        )
        temperature = low + (high - low) * power
        if temperature < LEAST:
            _native.keep_top_k(logits, 1)
        else:
            np.divide(logits, np.float32(temperature), out=logits)
        return logits
