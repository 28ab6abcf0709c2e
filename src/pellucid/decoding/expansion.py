"""One node of the token tree, opened: which tokens may follow it, the best first, and how probable each is.

A path is the tokens after the prompt. Strategies over many sequences (beam, exact search) speak of paths and
expansions only; who computes the logits, and with which keys and values shared, is not theirs to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pellucid.types import Int32

Float64 = NDArray[np.float64]
Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Expansion:
    """ids: int32 [ranks], tokens after which the output goes on, by log-probability descending, then id; logprobs:
    float64 [ranks]. ends: (id, log-probability) of the tokens that end it, by id. following: the log-probability of
    the next rank, -inf where there is none. tail: the probability of all ranks that are not listed. excluded: the
    probability of what the constraint, or a minimum length, forbids (log-probabilities are not renormalised).
    """

    ids: Int32
    logprobs: Float64
    ends: tuple[tuple[int, float], ...]
    following: float
    tail: float
    excluded: float


class Expander(Protocol):
    """Opens nodes. The same path gives the same expansion, whatever it is opened together with."""

    def expand(self, paths: Sequence[Path], ranks: int) -> list[Expansion]:
        """All of them in shared forward passes, each with its `ranks` best tokens."""

    def release(self, path: Path) -> None:
        """Nothing that begins with this path will be opened any more."""


class RowExpander(Protocol):
    """Opens nodes, and gives the whole distribution of each."""

    @property
    def stop_ids(self) -> Int32:
        """The tokens that end an output, ascending."""

    def rows(self, paths: Sequence[Path]) -> list[Float64]:
        """Of each distinct path, float64 [vocabulary]: log-probabilities of the next token that sum to 1, -inf for
        what is forbidden. All in shared forward passes."""

    def release(self, path: Path) -> None:
        """Nothing that begins with this path will be opened any more."""


def expansion_of(
    logprobs: Float64, stop_ids: Int32, allowed: Int32 | None, may_end: bool, ranks: int
) -> Expansion:
    """logprobs: float64 [vocabulary]. allowed: ids that the constraint leaves, ascending; None: all."""
    going = logprobs.copy()
    going[stop_ids] = -np.inf
    ending = stop_ids if may_end else stop_ids[:0]
    if allowed is not None:
        forbidden = np.ones(len(going), bool)
        forbidden[allowed] = False
        going[forbidden] = -np.inf
        ending = ending[~forbidden[ending]]
    ends = tuple((int(i), float(logprobs[i])) for i in ending if logprobs[i] > -np.inf)
    ids = best(going, ranks + 1)
    listed = ids[:ranks]
    following = float(going[ids[ranks]]) if len(ids) > ranks else -np.inf
    probabilities = np.exp(going)
    kept = float(probabilities.sum()) + sum(float(np.exp(lp)) for _, lp in ends)
    probabilities[listed] = 0.0
    tail = float(probabilities.sum())
    excluded = max(0.0, float(np.exp(logprobs).sum()) - kept) if allowed is not None or not may_end else 0.0
    return Expansion(listed.astype(np.int32), going[listed], ends, following, tail, excluded)


def best(values: Float64, count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest values above -inf, by value descending, then index ascending."""
    if count < len(values):
        threshold = np.partition(values, len(values) - count)[len(values) - count]
        chosen = np.flatnonzero((values >= threshold) & (values > -np.inf))
    else:
        chosen = np.flatnonzero(values > -np.inf)
    order: NDArray[np.intp] = chosen[np.argsort(-values[chosen], kind="stable")]
    return order[:count]
