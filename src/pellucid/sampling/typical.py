"""typical_p: the locally typical set (Meister et al. 2022, arXiv 2202.00666)."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.types import Float32


@samplers.register("typical")
@stage
class Typical:
    """Tokens by |surprise - entropy| ascending, then id ascending, until their probability reaches p. It may remove
    the most probable token."""

    order: ClassVar[int] = 810
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "all"

    typical_p: float = parameter(
        1.0,
        "float",
        "only the tokens whose surprise is nearest to the entropy, adding up to p, can be chosen; 1: all",
        above=0.0,
        maximum=1.0,
    )
    min_keep: int = shared(1)
    ties: str = shared("id")

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.typical_p < 1.0:
            _native.keep_typical(logits, self.typical_p, self.min_keep, self.ties == "all")
        return logits
