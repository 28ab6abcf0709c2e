"""top_p: the nucleus (Holtzman et al. 2020, arXiv 1904.09751), the shortest head of the order reaching p."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.types import Float32


@samplers.register("top_p")
@stage
class TopP:
    order: ClassVar[int] = 700
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "all"

    top_p: float = parameter(
        1.0,
        "float",
        "only the fewest tokens whose probability adds up to p can be chosen; 1: all",
        above=0.0,
        maximum=1.0,
    )
    min_keep: int = shared(1)

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.top_p < 1.0:
            _native.keep_top_p(logits, self.top_p, self.min_keep)
        return logits
