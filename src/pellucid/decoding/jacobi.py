"""Jacobi decoding: a block of guesses, all of them revised in every pass, until each is what its own choice would be.

Greedy decoding is a triangular system of equations y_i = choice(x, y_<i); a pass over the block is one Jacobi iteration
of it (Santilli et al. 2023, arXiv 2305.10427). With keyed noise a draw is a function of its row too, so the same holds
at any temperature (predictive sampling, Wiggers and Hoogeboom 2020, arXiv 2002.09928). The block's first token is right
after every pass, so a block of n takes at most n passes, and its fixed point is the plain output: it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pellucid.arrays import common_length
from pellucid.decoding.base import strategies
from pellucid.decoding.verify import Ahead, Choose, verify
from pellucid.errors import PellucidError
from pellucid.sampling.base import History
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Choice, Sampler
from pellucid.types import Float32, Int32, Logits, Screened


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
        self.chooses = self._sampler.chooses  # the guesser has the same stages then
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
        return self._pass(self._sampler.choose, self._guesser.choose, history, drafts, logits)

    def choose(self, history: History, drafts: list[int], rows: Sequence[Screened]) -> list[Choice]:
        return self._pass(
            self._sampler.choose_from_bounds, self._guesser.choose_from_bounds, history, drafts, rows
        )

    def _pass(
        self, choose: Choose, guess: Choose, history: History, drafts: list[int], rows: Logits
    ) -> list[Choice]:
        choices = verify(choose, history, drafts, rows)
        chosen = [choice.token_id for choice in choices]
        guesses = self._revise(guess, history, drafts, rows, len(chosen))
        follows = Ahead(history, chosen).token_ids
        self._guesses[history.sample_index] = follows, guesses
        old = drafts[len(chosen) : len(chosen) + len(guesses)]
        self._revised[history.sample_index] = sum(a != b for a, b in zip(old, guesses, strict=False))
        return choices

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
        self, guess: Choose, history: History, drafts: list[int], rows: Logits, first: int
    ) -> list[int]:
        """The choices of the rows from `first` on, each after the old guesses before it; as far as there are any."""
        guesses: list[int] = []
        for i in range(first, len(drafts) + 1):
            try:
                guesses.append(guess(Ahead(history, drafts[:i]), rows[i]).token_id)
            except (PellucidError, ValueError):  # after wrong guesses nothing may be allowed
                break
        return guesses
