"""Beam search, with the candidates, the scores and the stopping rules of transformers' `generate(num_beams=k)`.

Each step ranks all continuations of the k running prefixes by their sum of log-probabilities. Of the best k, those that
end (with an end token, or at the most tokens) are finished, with the value sum / length^length_penalty, the end token
counted; the best k that go on are the next step's. The k best finished are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pellucid.decoding.expansion import Expander, Expansion, Path
from pellucid.decoding.goal import NOTHING, Found

EarlyStopping = bool | Literal["never"]


class Candidate(NamedTuple):
    """A continuation. score: what it is ranked by; logprob: its sum of log-probabilities (the same, unless something
    like a diversity penalty is taken off the score). beam: the rank of the prefix that it continues."""

    score: float
    logprob: float
    beam: int
    path: Path
    ended: bool


class Running(NamedTuple):
    """A prefix that goes on."""

    score: float
    logprob: float
    path: Path


@dataclass(frozen=True, slots=True)
class BeamStep:
    """One step. running: (score, path) of the prefixes that go on, the best first; the score is their sum of
    log-probabilities, with the penalties of a diverse beam taken off. finished: how many outputs are kept. worst: the
    value of the worst of them."""

    running: tuple[tuple[float, Path], ...]
    finished: int
    worst: float


@dataclass(frozen=True, slots=True)
class BeamRules:
    """early_stopping: when to end, once k outputs are finished. True: at once. False: as soon as the best running
    prefix, ending at its present length, would not beat the worst finished one; a guess where length_penalty > 0.
    "never": likewise, at the length (up to the most tokens) that is kindest to it, so nothing that the beam could
    still find is missed.
    """

    width: int
    most_tokens: int
    num_stop_ids: int
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    @property
    def count(self) -> int:
        """Continuations to look at: enough that `width` go on, whatever ends."""
        return max(2, 1 + self.num_stop_ids) * self.width

    def value(self, score: float, length: int) -> float:
        divisor: float = length**self.length_penalty
        return score / divisor

    def over(self, length: int, best_running: float, num_finished: int, worst: float) -> bool:
        if num_finished < self.width:
            return False
        if self.early_stopping is True:
            return True
        kindest = self.most_tokens if self.early_stopping == "never" and self.length_penalty > 0 else length
        return self.value(best_running, kindest) <= worst


@dataclass(slots=True)
class Beam:
    """One beam while it runs."""

    rules: BeamRules
    running: list[Running] = field(default_factory=lambda: [Running(0.0, 0.0, ())])
    finished: list[Found] = field(default_factory=list)
    steps: list[BeamStep] = field(default_factory=list)
    over: bool = False

    def candidates(
        self, expansions: Mapping[Path, Expansion], penalties: Mapping[int, float] | None = None
    ) -> list[Candidate]:
        """The best continuations, equals by beam, then by token. expansions: of every running prefix, with `count`
        ranks and one more for each token of `penalties`. penalties: what is taken off a token's score."""
        penalties = penalties or {}
        found: list[Candidate] = []
        for beam, (score, total, path) in enumerate(self.running):
            expansion = expansions[path]
            for token, logprob in zip(expansion.ids.tolist(), expansion.logprobs.tolist(), strict=True):
                less = penalties.get(token, 0.0)
                found.append(Candidate(score + logprob - less, total + logprob, beam, (*path, token), False))
            for token, logprob in expansion.ends:
                found.append(Candidate(score + logprob, total + logprob, beam, (*path, token), True))
        found.sort(key=lambda each: (-each.score, each.beam, each.path))
        return found[: self.rules.count]

    def advance(self, candidates: list[Candidate]) -> None:
        """One step."""
        rules, length = self.rules, len(self.running[0].path) + 1
        for each in candidates[: rules.width]:
            if each.ended or length == rules.most_tokens:
                value = rules.value(each.score, length)
                self.finished.append(Found(value, each.logprob, each.path, each.ended))
        self.finished = sorted(self.finished, key=lambda each: -each.value)[: rules.width]
        going = [each for each in candidates if not each.ended][: rules.width]
        self.running = [Running(each.score, each.logprob, each.path) for each in going]
        worst = self.finished[-1].value if len(self.finished) == rules.width else NOTHING
        shown = tuple((each.score, each.path) for each in self.running)
        self.steps.append(BeamStep(shown, len(self.finished), worst))
        self.over = (
            not self.running
            or length == rules.most_tokens
            or rules.over(length, self.running[0].score, len(self.finished), worst)
        )


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """rules: see BeamRules."""

    rules: BeamRules

    def run(self, expander: Expander) -> tuple[list[Found], list[BeamStep]]:
        """The finished outputs, the best first, and what happened at each step."""
        beam = Beam(self.rules)
        while not beam.over:
            paths = [each.path for each in beam.running]
            expansions = dict(zip(paths, expander.expand(paths, self.rules.count), strict=True))
            beam.advance(beam.candidates(expansions))
        return beam.finished, beam.steps
