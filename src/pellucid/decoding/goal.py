"""What a search looks for: the value of an output, the best value that a prefix can still lead to, the best found.

Every value is score / length^alpha, score being the float64 sum of log-probabilities (each <= 0) in the order of the
tokens, and length the number of tokens, an end token included. A prefix's score is an upper bound on the score of
everything that begins with it (no model-free bound is tighter), and rounding keeps that: addition of a number <= 0
and division by a positive one are monotone in IEEE arithmetic. So a bound is a bound on the computed values.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from pellucid.decoding.expansion import Path

NOTHING = float("-inf")


@dataclass(frozen=True, slots=True)
class Found:
    """A whole output. ended: its last token is an end token; else it was cut at the most tokens."""

    value: float
    score: float
    path: Path
    ended: bool

    @property
    def rank(self) -> tuple[float, Path]:
        """Of two outputs the better has the smaller rank: by value, equals by their ids."""
        return (-self.value, self.path)


class Goal:
    """The n best outputs so far, over all lengths or (per_length) for each length of its own."""

    def __init__(self, most_tokens: int, *, n: int = 1, alpha: float = 0.0, per_length: bool = False) -> None:
        self.most_tokens, self.n, self.alpha, self.per_length = most_tokens, n, alpha, per_length
        self._divisors: list[float] = [1.0] + [float(length**alpha) for length in range(1, most_tokens + 1)]
        # [depth]: the divisor that is kindest to a negative score among the lengths above this depth.
        self._kindest = [max(self._divisors[depth + 1 :], default=1.0) for depth in range(most_tokens + 1)]
        self.best: dict[int, list[Found]] = {
            group: [] for group in (range(1, most_tokens + 1) if per_length else [0])
        }
        self.lost = NOTHING  # the best value of a whole output that was found and is not among the best
        self._refresh()

    def value(self, score: float, length: int) -> float:
        return score / self._divisors[length]

    def bound(self, score: float, depth: int) -> float:
        """No output that begins with a prefix of this score and depth, and goes on, has a higher value."""
        return score / self._kindest[depth]

    def threshold(self, depth: int) -> float:
        """A prefix of this depth whose bound is below it cannot change what is found."""
        return self._thresholds[depth]

    def offer(self, score: float, path: Path, ended: bool) -> bool:
        """Whether it is among the best now."""
        found = Found(self.value(score, len(path)), score, path, ended)
        kept = self.best[len(path) if self.per_length else 0]
        if any(each.path == path for each in kept):
            return False
        insort(kept, found, key=lambda each: each.rank)
        taken = True
        if len(kept) > self.n:
            worst = kept.pop()
            self.lost = max(self.lost, worst.value)
            taken = worst is not found
        if taken:
            self._refresh()
        return taken

    def outputs(self) -> list[Found]:
        """All that are kept, the best first."""
        return sorted((each for kept in self.best.values() for each in kept), key=lambda each: each.rank)

    def _refresh(self) -> None:
        full = {g: kept[-1].value if len(kept) == self.n else NOTHING for g, kept in self.best.items()}
        if self.per_length:
            self._thresholds = [
                min((full[g] for g in range(depth + 1, self.most_tokens + 1)), default=0.0)
                for depth in range(self.most_tokens + 1)
            ]
        else:
            self._thresholds = [full[0]] * (self.most_tokens + 1)
