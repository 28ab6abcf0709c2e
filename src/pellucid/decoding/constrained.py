"""Constrained decoding: text that must come is drafted, so that several tokens of it share a pass.

Every token is still chosen from its own row, by the mask, the other stages and its own noise: a draft that is not what
would have been chosen is refused. So the output has the bits of "sample", which computes one row at a time.
"""

from __future__ import annotations

from typing import ClassVar

from pellucid.decoding.base import strategies
from pellucid.decoding.verify import verify
from pellucid.sampling.base import History
from pellucid.sampling.constraint import constraint_of
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Choice, Sampler
from pellucid.types import Float32

MAX_DRAFTS = 15  # rows of one pass after the first; more rows cost more than they save where one is refused


@strategies.register("constrained")
class Constrained:
    proposes: ClassVar[bool] = True

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self._sampler = Sampler(params, seed)
        self._constraint = constraint_of(self._sampler.stages)

    def propose(self, history: History) -> list[int]:
        if self._constraint is None:
            return []
        return self._constraint.state(history).forced()[:MAX_DRAFTS]

    def advance(self, history: History, drafts: list[int], logits: Float32) -> list[Choice]:
        return verify(self._sampler.choose, history, drafts, logits)

    def source(self, sample_index: int) -> str:
        return "grammar"

    def take_revised(self, sample_index: int) -> int:
        return 0

    def take_failures(self) -> dict[str, str]:
        return {}
