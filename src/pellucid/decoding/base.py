"""The protocol of a decoding strategy: how logits become tokens. To add one, copy `sample.py`.

A strategy sees one sequence at a time and knows no engine: the engine computes logits, asks, and appends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from pellucid.registry import Registry
from pellucid.sampling.base import History
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Choice
from pellucid.types import Float32, Screened


class DecodingStrategy(Protocol):
    """One for each request: `strategies["sample"](params, seed)`."""

    proposes: ClassVar[bool]  # whether `propose` ever returns drafts; if not, it is not called

    def __init__(self, params: SamplingParams, seed: int) -> None: ...

    def propose(self, history: History) -> list[int]:
        """Guesses of the tokens at positions len(history.token_ids), + 1, ...: their logits are computed in
        the same pass. Wrong guesses cost time, never change the output. Fewer of them may be computed than
        were proposed."""

    def advance(self, history: History, drafts: list[int], logits: Float32) -> list[Choice]:
        """At least one token to append, at most 1 + len(drafts).

        logits: float32 [1 + len(drafts), vocabulary]; row i follows history + drafts[:i], so the choice of
        row i + 1 counts only while choices up to i equal the drafts.
        """


class ChoosingStrategy(DecodingStrategy, Protocol):
    """One that can do with bounds of its rows of logits. Others need not say so."""

    chooses: bool  # whether it does, with these parameters

    def choose(self, history: History, drafts: list[int], rows: Sequence[Screened]) -> list[Choice]:
        """What `advance` would give for the exact logits of these rows."""


class SpeculatingStrategy(DecodingStrategy, Protocol):
    """One that tells of its drafts. Others need not: theirs are counted without a name."""

    def source(self, sample_index: int) -> str:
        """Who made the last proposal for this sample."""

    def take_revised(self, sample_index: int) -> int:
        """Guesses that the last `advance` has changed, of those that it keeps for the next pass."""

    def take_failures(self) -> dict[str, str]:
        """Drafters that have failed since the last call, and how."""


strategies: Registry[type[DecodingStrategy]] = Registry("pellucid.decoding")
