"""Self-consistency (Wang et al. 2022, arXiv 2203.11171): the answer that most samples come to."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Party:
    """An answer, the sum of the weights of its votes, and who cast them (ascending)."""

    answer: Hashable
    weight: float
    samples: tuple[int, ...]


def count_votes(answers: Sequence[Hashable | None], weights: Sequence[float]) -> tuple[Party, ...]:
    """The parties, the heaviest first, of equals the one whose first vote came first. None casts no vote."""
    parties: dict[Hashable, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            parties.setdefault(answer, []).append(index)
    found = [Party(answer, sum(weights[i] for i in cast), tuple(cast)) for answer, cast in parties.items()]
    return tuple(sorted(found, key=lambda party: -party.weight))
