"""Plain decoding: one token from one row of logits, greedy or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pellucid.decoding.base import strategies
from pellucid.sampling.base import History
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Choice, Sampler
from pellucid.types import Float32, Screened


@strategies.register("sample")
class Sample:
    proposes: ClassVar[bool] = False

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self._sampler = Sampler(params, seed)
        self.chooses = self._sampler.chooses

    def propose(self, history: History) -> list[int]:
        return []

    def advance(self, history: History, drafts: list[int], logits: Float32) -> list[Choice]:
        return [self._sampler.choose(history, logits[0])]

    def choose(self, history: History, drafts: list[int], rows: Sequence[Screened]) -> list[Choice]:
        return [self._sampler.choose_from_bounds(history, rows[0])]
