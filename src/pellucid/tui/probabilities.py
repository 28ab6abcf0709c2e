"""The probability of every token of a generation under the model: kept while it changes, computed where missing."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING

from pellucid.held.past_rows import past_rows
from pellucid.sampling.distribution import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pellucid.held.generation import Generation
    from pellucid.types import Float32

PIECE = 128  # positions computed at a time, so that a long prompt can be given up
MOST_COLOURED = 512  # tokens of a prompt: each costs its logits, which for a small model are most of the work


class Probabilities:
    """Of one branch. Follows its tokens: what they begin with in common with those last seen is kept."""

    def __init__(self, parent: Probabilities | None = None) -> None:
        self._ids: list[int] = [] if parent is None else parent._ids.copy()
        self.values: list[float | None] = [] if parent is None else parent.values.copy()

    def follow(self, generation: Generation) -> None:
        """Takes in the tokens as they are now; what a step has recorded need not be computed."""
        ids = generation.token_array.tolist()
        same = 0
        for a, b in zip(ids, self._ids, strict=False):
            if a != b:
                break
            same += 1
        self.values[same:] = [None] * (len(ids) - same)
        self._ids = ids
        for record in generation.records:
            if record.position >= same and record.logprob is not None:
                self.values[record.position] = exp(record.logprob)

    def missing(self, most: int | None) -> tuple[int, int]:
        """All missing positions of the last `most` lie in [start, stop); none are missing: start >= stop."""
        first = 1 if most is None else max(1, len(self.values) - most)
        wanted = [at for at in range(first, len(self.values)) if self.values[at] is None]
        return (wanted[0], wanted[-1] + 1) if wanted else (len(self.values), 0)

    @property
    def uncoloured(self) -> int:
        """Tokens after the first that have no probability."""
        return sum(value is None for value in self.values[1:])

    def fill(self, generation: Generation, most: int | None) -> Iterator[tuple[int, int]]:
        """Computes what is missing, piece by piece: yields (positions done, of how many) before each. What stands
        before the range is computed first, without its logits."""
        start, stop = self.missing(most)
        if start >= stop:
            return

        def take(position: int, row: Float32) -> None:
            self.values[position] = Distribution(row).probability(self._ids[position])

        at = start
        for before in range(PIECE, start, PIECE):
            yield before, stop
            past_rows(generation, before, before + 1, lambda position, row: None)
        while at < stop:
            yield at, stop
            end = min(at + PIECE, stop)
            past_rows(generation, at, end, take)
            at = end
