"""top_n_sigma: within n standard deviations of the largest logit (Tang et al. 2024, arXiv 2411.07641)."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.types import Float32


@samplers.register("top_n_sigma")
@stage
class TopNSigma:
    """The mean and the deviation are of the logits that are not excluded. No temperature changes the set."""

    order: ClassVar[int] = 590
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "all"

    top_n_sigma: float = parameter(
        0.0,
        "float",
        "only tokens whose logit is within n standard deviations of the largest can be chosen; 0: all",
        minimum=0.0,
        maximum=1000.0,
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.top_n_sigma > 0.0:
            _native.keep_top_n_sigma(logits, self.top_n_sigma)
        return logits
