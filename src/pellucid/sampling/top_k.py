"""top_k: the k largest logits stay; of equals at the edge the lowest ids, or all (`ties`)."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.types import Float32


@samplers.register("top_k")
@stage
class TopK:
    order: ClassVar[int] = 600
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "top"

    top_k: int = parameter(
        0, "int", "only the k most probable tokens can be chosen; 0: all", minimum=0, maximum=2**31 - 1
    )
    ties: str = shared("id")

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.top_k > 0:
            _native.keep_top_k(logits, self.top_k, self.ties == "all")
        return logits
