"""The protocol of a decoding strategy: how logits become tokens. To add one, copy `sample.py`.

A strategy sees one sequence at a time and knows no engine: the engine computes logits, asks, and appends.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from pellucid.registry import Registry
from pellucid.sampling.base import History
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Choice
from pellucid.types import Logits


class DecodingStrategy(Protocol):
    """One for each request: `strategies["sample"](params, seed)`."""

    proposes: ClassVar[bool]  # whether `propose` ever returns drafts; if not, it is not called

    def __init__(self, params: SamplingParams, seed: int) -> None: ...

    # chooses: bool, False where it is not declared. True: without drafts, bounds in place of logits will do.

    def propose(self, history: History) -> list[int]:
        """Guesses of the tokens at positions len(history.token_ids), + 1, ...: their logits are computed in
        the same pass. Wrong guesses cost time, never change the output. Fewer of them may be computed than
        were proposed."""

    def advance(self, history: History, drafts: list[int], logits: Logits) -> list[Choice]:
        """At least one token to append, at most 1 + len(drafts).

        logits: float32 [1 + len(drafts), vocabulary], or a Screened if it chooses; row i follows history +
        drafts[:i], so the choice of row i + 1 counts only while choices up to i equal the drafts.
        """


strategies: Registry[type[DecodingStrategy]] = Registry("pellucid.decoding")
