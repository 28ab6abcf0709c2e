"""min_p: a floor relative to the largest probability (Nguyen et al. 2024, arXiv 2407.01082)."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.types import Float32


@samplers.register("min_p")
@stage
class MinP:
    order: ClassVar[int] = 800
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "top"

    min_p: float = parameter(
        0.0,
        "float",
        "only tokens at least p times as probable as the first can be chosen; 0: all",
        minimum=0.0,
        maximum=1.0,
    )
    min_keep: int = shared(1)

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.min_p > 0.0:
            _native.keep_min_p(logits, self.min_p, self.min_keep)
        return logits
