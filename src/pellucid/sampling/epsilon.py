"""epsilon_cutoff: a floor under every probability (Hewitt et al. 2022, arXiv 2210.15191)."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.types import Float32


@samplers.register("epsilon")
@stage
class Epsilon:
    order: ClassVar[int] = 820
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "all"

    epsilon_cutoff: float = parameter(
        0.0,
        "float",
        "only tokens of at least this probability can be chosen (the first always can); 0: all",
        minimum=0.0,
        maximum=1.0,
    )
    min_keep: int = shared(1)
    ties: str = shared("id")

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.epsilon_cutoff > 0.0:
            _native.keep_epsilon(logits, self.epsilon_cutoff, self.min_keep, self.ties == "all")
        return logits
