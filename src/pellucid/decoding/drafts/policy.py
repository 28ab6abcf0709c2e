"""How many drafts are worth their rows: estimates of acceptance against measured costs. Zero is an answer.

With chance a_i that draft i is right if those before it are, a pass with k drafts gives 1 + a_1 + a_1 a_2 + ... tokens
and costs c(k) passes without; the k of the best quotient is taken. Guesses that are not checked still teach: the token
that comes says whether the first of them was right. So a policy that has stopped guessing notices when it should begin
again, at no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pellucid.decoding.drafts.costs import PassCosts

# Numbers of guesses: few shapes of passes, since each is recorded, and measured, by itself.
LENGTHS = (1, 2, 3, 5, 7, 9, 11, 15, 23, 31, 47, 64)
MEMORY = 0.95  # of a rate, for each new observation
WEIGHT = 2.0  # observations that the assumed rate counts as
LEAST_GAIN = 1.08  # a gain in tokens a second below it is not worth the risk of a wrong estimate
LEAST_HOPE = 1.2  # the same if every guess were right: below it nobody is asked, which costs time, too
# Assumed chance of a guess by its confidence, before this request has shown its own.
ASSUMED = {
    "grammar": (0.95,),
    "model": (0.6,),
    "context": (0.05, 0.15, 0.3, 0.45, 0.6, 0.7),
    "corpus": (0.05, 0.15, 0.3, 0.45, 0.6, 0.7),
}
ASSUMED_OTHERS = (0.3,)
ASSUMED_REST = 0.8  # of a further guess, where those before it were right


class _Rate:
    """A chance, estimated from what came, the newest counting most."""

    __slots__ = ("hits", "trials")

    def __init__(self, assumed: float) -> None:
        self.hits, self.trials = assumed * WEIGHT, WEIGHT

    def note(self, hit: bool) -> None:
        self.hits = MEMORY * self.hits + hit
        self.trials = MEMORY * self.trials + 1

    @property
    def value(self) -> float:
        return self.hits / self.trials


class Plan(NamedTuple):
    """So many guesses of one source; gain: tokens a second, by those of a pass without guesses."""

    length: int
    gain: float


NOTHING = Plan(0, 1.0)


class Policy:
    """Of one request. most: guesses of a pass."""

    def __init__(self, costs: PassCosts, most: int) -> None:
        self.costs = costs
        self.most = most
        self._first: dict[tuple[str, int], _Rate] = {}
        self._rest: dict[str, _Rate] = {}

    @property
    def hopeless(self) -> bool:
        """Whether not even right guesses would pay: many sequences share the pass already, or it is time to
        measure a pass without guesses again."""
        costs = self.costs
        if not costs.is_fresh(costs.rows):
            return costs.any_measured
        curve, rows = costs.curve(self.most), costs.rows
        return all((rows + k) / rows < LEAST_HOPE * curve[k] for k in LENGTHS if k <= self.most)

    def plan(self, source: str, confidence: int, available: int, seconds_each: float = 0.0) -> Plan:
        """seconds_each: what a guess itself costs, beside the row that checks it."""
        costs, most = self.costs, min(available, self.most, self.costs.reach)
        if not most:
            return NOTHING
        curve, rows = costs.curve(self.most), costs.rows
        each = seconds_each / costs.seconds(rows) if seconds_each else 0.0
        chance, rest = self._rate(source, confidence).value, self._rest_of(source).value
        best, gain, done, expected = 0, LEAST_GAIN, 0, 0.0
        for k in LENGTHS:
            length = min(k, most)
            while done < length:
                expected += chance
                chance *= rest
                done += 1
            found = (rows + expected) / (rows * (curve[length] + length * each))
            if found > gain:
                best, gain = length, found
            if k >= most:
                break
        return Plan(best, gain) if best else NOTHING

    def note(self, source: str, confidence: int, ids: Sequence[int], chosen: Sequence[int]) -> None:
        """What was guessed, and the tokens that came in its place: as many as are known."""
        for i, (guess, token) in enumerate(zip(ids, chosen, strict=False)):
            rate = self._rate(source, confidence) if i == 0 else self._rest_of(source)
            rate.note(guess == token)
            if guess != token:
                return

    def _rate(self, source: str, confidence: int) -> _Rate:
        assumed = ASSUMED.get(source, ASSUMED_OTHERS)
        level = min(max(confidence, 1).bit_length(), len(assumed)) - 1  # lengths 1, 2-3, 4-7, ...
        key = (source, level)
        if key not in self._first:
            self._first[key] = _Rate(assumed[level])
        return self._first[key]

    def _rest_of(self, source: str) -> _Rate:
        if source not in self._rest:
            self._rest[source] = _Rate(ASSUMED_REST)
        return self._rest[source]
