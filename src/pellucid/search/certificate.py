"""A proof that nothing more probable was missed, and its checker, which shares no code with the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pellucid.decoding.expansion import Path
    from pellucid.llm import LLM
    from pellucid.search.tree import Space
    from pellucid.types import Float32


@dataclass(frozen=True, slots=True)
class Verification:
    """valid: every step of the proof holds. nodes: distributions computed again. problem: the first step that does
    not hold, in words; "" where all do. True in conditions exactly where it is valid."""

    valid: bool
    nodes: int
    problem: str = ""

    def __bool__(self) -> bool:
        return self.valid


@dataclass(frozen=True, slots=True)
class Certificate:
    """outputs: (value, ids) of what was returned, the best first. opened: every prefix whose distribution was looked
    at. The claim: each child of an opened prefix is opened too, or is a whole output that is returned or not better
    than the last returned, or can lead to nothing better than that. By induction over the tree nothing better exists.
    """

    space: Space
    most_tokens: int
    alpha: float
    must_end: bool
    per_length: bool
    n: int
    outputs: tuple[tuple[float, Path], ...]
    opened: tuple[Path, ...]

    def __repr__(self) -> str:
        return f"Certificate({len(self.outputs)} outputs, {len(self.opened)} prefixes opened)"

    def verify(self, llm: LLM) -> Verification:
        """Computes every opened prefix again through `llm.logits`, and checks the claim. As long as the search."""
        checker = _Checker(self, llm)
        return checker.run()


class _Checker:
    def __init__(self, certificate: Certificate, llm: LLM) -> None:
        self._c, self._llm = certificate, llm
        self._opened = set(certificate.opened)
        self._scores: dict[Path, float] = {(): 0.0}
        self._returned = {path: value for value, path in certificate.outputs}
        values: dict[int, list[float]] = {}  # of the outputs of each length, or of all
        for value, path in certificate.outputs:
            values.setdefault(len(path) if certificate.per_length else 0, []).append(value)
        # Where fewer than n were returned, there are no others, however improbable.
        self._limits = {g: min(each) for g, each in values.items() if len(each) >= certificate.n}
        self._seen: set[Path] = set()

    def run(self) -> Verification:
        nodes = 0
        if () not in self._opened:
            return Verification(False, 0, "the prompt itself was not opened")
        for path in sorted(self._opened, key=lambda each: (len(each), each)):
            if path not in self._scores:
                continue  # opened before the limit was known: nothing below it matters
            nodes += 1
            problem = self._check(path)
            if problem:
                return Verification(False, nodes, f"after {list(path)}: {problem}")
        missing = set(self._returned) - self._seen
        if missing:
            return Verification(
                False, nodes, f"{list(min(missing))} is returned, but its prefix was not opened"
            )
        return Verification(True, nodes)

    def _limit(self, shortest: int) -> float:
        """What an output of at least so many tokens must not exceed."""
        if not self._c.per_length:
            return self._limits.get(0, -np.inf)
        lengths = range(shortest, self._c.most_tokens + 1)
        return min((self._limits.get(length, -np.inf) for length in lengths), default=np.inf)

    def _row(self, ids: list[int]) -> Float32:
        """The logits after these tokens, under the interventions of the search."""
        changes = self._c.space.changes
        if changes is None:
            row: Float32 = self._llm.logits(ids)[-1]
            return row
        return self._llm._row_under(changes, ids)

    def _check(self, path: Path) -> str:
        c, space, depth = self._c, self._c.space, len(path)
        other = space.companion_ids
        logprobs = space.logprobs(
            path,
            self._row([*space.prompt_ids, *path]),
            None if other is None else self._llm.logits([*other, *path])[-1],
        )
        totals = self._scores[path] + logprobs
        allowed = space.allowed(path)
        if allowed is not None:
            forbidden = np.ones(len(totals), bool)
            forbidden[allowed] = False
            totals[forbidden] = -np.inf
        ends = np.zeros(len(totals), bool)
        ends[space.stop_ids] = True
        whole = ends | (depth + 1 == c.most_tokens)
        if depth < space.min_tokens:
            totals[ends] = -np.inf
        if c.must_end and depth + 1 == c.most_tokens:
            totals[~ends] = -np.inf
        return self._check_whole(path, totals, whole) or self._check_open(path, totals, ~whole)

    def _check_whole(self, path: Path, totals: NDArray[Any], whole: NDArray[Any]) -> str:
        length = len(path) + 1
        values = totals / length**self._c.alpha
        limit = self._limits.get(length if self._c.per_length else 0, -np.inf)
        for token in np.flatnonzero(whole & (values >= limit) & (values > -np.inf)):
            child = (*path, int(token))
            if child in self._returned:
                if self._returned[child] != values[token]:
                    return f"token {token} has the value {values[token]!r}, not {self._returned[child]!r}"
                self._seen.add(child)
            elif values[token] > limit:
                return f"token {token} makes a better output that was not returned"
        return ""

    def _check_open(self, path: Path, totals: NDArray[Any], going: NDArray[Any]) -> str:
        depth = len(path) + 1
        lengths = range(depth + 1, self._c.most_tokens + 1)
        kindest = max((length**self._c.alpha for length in lengths), default=1.0)
        bounds = totals / kindest
        for token in np.flatnonzero(going & (totals > -np.inf) & (bounds >= self._limit(depth + 1))):
            child = (*path, int(token))
            if child in self._opened:
                self._scores[child] = float(totals[token])
            elif bounds[token] > self._limit(depth + 1):
                return f"token {token} could lead to something better, and was not opened"
        return ""
