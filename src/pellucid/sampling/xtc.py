"""xtc: exclude top choices, by chance (p-e-w 2024, oobabooga/text-generation-webui#6335)."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.errors import UsageError
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.sampling.random import XTC_STREAM, uniform
from pellucid.types import Float32


@samplers.register("xtc")
@stage
class Xtc:
    """With probability xtc_probability: of the tokens of at least xtc_threshold all but the least probable are
    removed. The coin is keyed as the draw is, on its own stream."""

    order: ClassVar[int] = 840
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "all"

    xtc_probability: float = parameter(
        0.0,
        "float",
        "the chance of each step to remove all tokens above xtc_threshold but the least probable of them; 0: off",
        minimum=0.0,
        maximum=1.0,
    )
    xtc_threshold: float = parameter(
        0.1,
        "float",
        "how probable a token must be to be removed; above 0.5 nothing is",
        above=0.0,
        maximum=1.0,
        modifies=("xtc_probability",),
    )
    min_keep: int = shared(1)
    temperature: float = shared(1.0)

    def __post_init__(self) -> None:
        if self.xtc_probability > 0 and self.temperature == 0:
            raise UsageError(
                "xtc_probability asks for chance and temperature=0 for none; set a temperature above 0"
            )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.xtc_probability <= 0.0 or self.xtc_threshold > 0.5:
            return logits
        coin = uniform(step.seed, step.sample_index, len(step.token_ids), XTC_STREAM)
        if coin < self.xtc_probability:
            _native.exclude_top(logits, self.xtc_threshold, self.min_keep)
        return logits
