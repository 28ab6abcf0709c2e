"""Jacobi decoding: a block of guesses, all of them revised in every pass, until each is what its own choice would be.

Greedy decoding is a triangular system of equations y_i = choice(x, y_<i); a pass over the block is one Jacobi iteration
of it (Santilli et al. 2023, arXiv 2305.10427). With keyed noise a draw is a function of its row too, so the same holds
at any temperature (predictive sampling, Wiggers and Hoogeboom 2020, arXiv 2002.09928). The block's first token is right
after every pass, so a block of n takes at most n passes, and its fixed point is the plain output: it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pellucid.arrays import common_length
from pellucid.decoding.base import strategies
from pellucid.decoding.verify import Ahead, verify
from pellucid.errors import PellucidError
from pellucid.sampling.base import History
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Choice, Sampler
from pellucid.types import Float32, Int32, Screened


def guessing_sampler(params: SamplingParams, seed: int) -> Sampler:
    """One for choices that may never be made: it has memories of its own, and calls nobody's functions."""
    sampler = Sampler(params if params.logprobs is None else params.replace(logprobs=None), seed)
    sampler.stages.pop("functions", None)
    return sampler


@strategies.register("jacobi")
class Jacobi:
    """The block is max_drafts tokens. Its first guess repeats the last token; what comes later is the last pass's
    choices, one position on."""

    proposes: ClassVar[bool] = True

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self._sampler = Sampler(params, seed)
        self._guesser = guessing_sampler(params, seed)
        self.chooses = self._sampler.chooses and self._guesser.chooses
        self._block = params.max_drafts
        # Of each sample: the history that the guesses follow, and they.
        self._guesses: dict[int, tuple[Int32, list[int]]] = {}
        self._revised: dict[int, int] = {}

    def propose(self, history: History) -> list[int]:
        ids = history.token_ids
        follows, guesses = self._guesses.pop(history.sample_index, (ids[:0], []))
        if len(follows) != len(ids) or common_length(follows, ids) < len(ids):
            guesses = []
        return self._filled(guesses, int(ids[-1]))

    def advance(self, history: History, drafts: list[int], logits: Float32) -> list[Choice]:
        choices = verify(self._sampler.choose, history, drafts, logits)
        self._keep(
            history,
            drafts,
            choices,
            self._revise(self._guesser.choose, history, drafts, logits, len(choices)),
        )
        return choices

    def choose(self, history: History, drafts: list[int], rows: Sequence[Screened]) -> list[Choice]:
        choices = verify(self._sampler.choose_from_bounds, history, drafts, rows)
        guesser = self._guesser.choose_from_bounds
        self._keep(history, drafts, choices, self._revise(guesser, history, drafts, rows, len(choices)))
        return choices

    def _keep(self, history: History, drafts: list[int], choices: list[Choice], guesses: list[int]) -> None:
        """The guesses of the next pass, and how many of the old ones they revise."""
        chosen = [choice.token_id for choice in choices]
        follows = Ahead(history, chosen).token_ids
        self._guesses[history.sample_index] = follows, guesses
        old = drafts[len(chosen) : len(chosen) + len(guesses)]
        self._revised[history.sample_index] = sum(a != b for a, b in zip(old, guesses, strict=False))

    def source(self, sample_index: int) -> str:
        return "jacobi"

    def take_revised(self, sample_index: int) -> int:
        return self._revised.pop(sample_index, 0)

    def take_failures(self) -> dict[str, str]:
        return {}

    def _filled(self, guesses: list[int], last: int) -> list[int]:
        filler = guesses[-1] if guesses else last
        return (guesses + [filler] * self._block)[: self._block]

    def _revise(
        self,
        choose: Callable[[History, Any], Choice],
        history: History,
        drafts: list[int],
        rows: Float32 | Sequence[Screened],
        first: int,
    ) -> list[int]:
        """The choices of the rows from `first` on, each after the old guesses before it; as far as there are any."""
        guesses: list[int] = []
        for i in range(first, len(drafts) + 1):
            try:
                guesses.append(choose(Ahead(history, drafts[:i]), rows[i]).token_id)
            except (PellucidError, ValueError):  # after wrong guesses nothing may be allowed
                break
        return guesses
