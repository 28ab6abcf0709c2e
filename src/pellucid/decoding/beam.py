"""Beam search, with the candidates, the scores and the stopping rules of transformers' `generate(num_beams=k)`.

Each step ranks all continuations of the k running prefixes by their sum of log-probabilities. Of the best k, those that
end (with an end token, or at the most tokens) are finished, with the value sum / length^length_penalty, the end token
counted; the best k that go on are the next step's. The k best finished are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pellucid.decoding.expansion import Expander, Path
from pellucid.decoding.goal import Found

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class BeamStep:
    """One step. running: (sum of log-probabilities, path) of the prefixes that go on, the best first. finished: how
    many outputs are kept. worst: the value of the worst of them."""

    running: tuple[tuple[float, Path], ...]
    finished: int
    worst: float


@dataclass(frozen=True, slots=True)
class BeamSearch:
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

    def run(self, expander: Expander) -> tuple[list[Found], list[BeamStep]]:
        """The finished outputs, the best first, and what happened at each step."""
        running: list[tuple[float, Path]] = [(0.0, ())]
        finished: list[Found] = []
        steps: list[BeamStep] = []
        count = max(2, 1 + self.num_stop_ids) * self.width  # enough that `width` go on, whatever ends
        for length in range(1, self.most_tokens + 1):
            candidates = self._candidates(expander, running, count)
            for score, _, path, ended in candidates[: self.width]:
                if ended or length == self.most_tokens:
                    finished.append(Found(score / length**self.length_penalty, score, path, ended))
            finished = sorted(finished, key=lambda each: -each.value)[: self.width]
            running = [(score, path) for score, _, path, ended in candidates if not ended][: self.width]
            worst = finished[-1].value if len(finished) == self.width else float("-inf")
            steps.append(BeamStep(tuple(running), len(finished), worst))
            if not running or self._over(length, running[0][0], len(finished), worst):
                break
        return finished, steps

    @staticmethod
    def _candidates(
        expander: Expander, running: list[tuple[float, Path]], count: int
    ) -> list[tuple[float, int, Path, bool]]:
        """The best continuations: (score, beam, path, whether it ends), equals by beam, then by token."""
        found: list[tuple[float, int, Path, bool]] = []
        expansions = expander.expand([path for _, path in running], count)
        for beam, ((score, path), expansion) in enumerate(zip(running, expansions, strict=True)):
            pairs = zip(expansion.ids.tolist(), expansion.logprobs.tolist(), strict=True)
            found += [(score + logprob, beam, (*path, token), False) for token, logprob in pairs]
            found += [(score + logprob, beam, (*path, token), True) for token, logprob in expansion.ends]
        found.sort(key=lambda each: (-each[0], each[1], each[2]))
        return found[:count]

    def _over(self, length: int, best_running: float, num_finished: int, worst: float) -> bool:
        if num_finished < self.width:
            return False
        if self.early_stopping is True:
            return True
        kindest = self.most_tokens if self.early_stopping == "never" and self.length_penalty > 0 else length
        divisor: float = kindest**self.length_penalty
        return best_running / divisor <= worst
