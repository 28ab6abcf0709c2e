"""Best-first beam search (Meister, Vieira and Cotterell 2020, arXiv 2007.03909): the outputs of `beam.py`, fewer rows.

Prefixes wait in one queue, the best score first. Scores never rise along a path, so when a prefix comes out,
everything of its length that is better has come out before it: it belongs to the beam of its length exactly if fewer
than k of that length have. What cannot become better than the k best finished outputs is not opened, although the
plain beam goes on with it.

The first in the queue shares its pass with those behind it that are certain to be of their beams: where no shorter
prefix stands between, since only children of shorter ones can still come before them. They are no longer than the
first, so the plain beam has computed them when it comes to the first: with length_penalty >= 0 and no exact ties, no
row is computed that the plain beam would not compute. There are more passes, of fewer rows each.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from pellucid.decoding.beam import BeamRules
from pellucid.decoding.expansion import Expander, Expansion, Path
from pellucid.decoding.goal import NOTHING, Found


class _Waiting(NamedTuple):
    """In the order in which `beam.py` ranks: by score, then (of equals) the shorter, by beam, by token."""

    negative: float
    length: int
    beam: int
    path: Path
    ended: bool


@dataclass(frozen=True, slots=True)
class BestFirstBeam:
    """rules: their early_stopping must be "never", or what comes to the same: False with a length_penalty of at most 0.
    The other rules end by what all prefixes of one length look like, which is not known here."""

    rules: BeamRules

    def run(self, expander: Expander) -> list[Found]:
        """The finished outputs, the best first: those of `BeamSearch`, with the same bits."""
        return _Queue(self.rules, expander).run()


class _Queue:
    def __init__(self, rules: BeamRules, expander: Expander) -> None:
        self._rules, self._expander = rules, expander
        self._heap: list[_Waiting] = [_Waiting(0.0, 0, 0, (), False)]
        # Of each length: what came out, and how much of that goes on.
        self._all = [0] * (rules.most_tokens + 1)
        self._going = [0] * (rules.most_tokens + 1)
        self._known: dict[Path, Expansion] = {}
        self._finished: list[
            tuple[tuple[float, int, int], Found]
        ] = []  # (-value, length, rank), as `beam.py`

    def run(self) -> list[Found]:
        while self._heap:
            first = self._heap[0]
            if self._to_open(first, self._going[first.length]) and first.path not in self._known:
                self._make_known()
            self._take(heappop(self._heap))
        return [found for _, found in self._finished]

    def _whole(self, each: _Waiting) -> bool:
        return each.ended or each.length == self._rules.most_tokens

    def _to_open(self, each: _Waiting, before: int) -> bool:
        """before: how many that go on, of its length, come out before it."""
        if self._whole(each) or before >= self._rules.width:
            return False
        if len(self._finished) < self._rules.width:
            return True
        kindest = self._rules.most_tokens if self._rules.length_penalty > 0 else each.length + 1
        return self._rules.value(-each.negative, kindest) > self._finished[-1][1].value

    def _take(self, each: _Waiting) -> None:
        length = each.length
        if self._whole(each):
            if self._all[length] < self._rules.width:
                self._finish(each)
        else:
            if self._to_open(each, self._going[length]):
                self._open(each, self._going[length])
            self._going[length] += 1
        self._all[length] += 1

    def _finish(self, each: _Waiting) -> None:
        value = self._rules.value(-each.negative, each.length)
        found = Found(value, -each.negative, each.path, each.ended)
        self._finished.append(((-value, each.length, self._all[each.length]), found))
        self._finished.sort(key=lambda kept: kept[0])
        del self._finished[self._rules.width :]

    def _open(self, each: _Waiting, beam: int) -> None:
        expansion = self._known.pop(each.path)
        score, length = -each.negative, each.length + 1
        going = zip(expansion.ids.tolist(), expansion.logprobs.tolist(), strict=True)
        for ended, pairs in ((False, going), (True, expansion.ends)):
            for token, logprob in pairs:
                if score + logprob > NOTHING:
                    path = (*each.path, token)
                    heappush(self._heap, _Waiting(-(score + logprob), length, beam, path, ended))

    def _make_known(self) -> None:
        """Opens the first in the queue, and in the same pass those behind it that are certain."""
        chosen: list[Path] = []
        counts = self._going.copy()
        shortest = self._heap[0].length
        for each in sorted(self._heap):
            if each.length > shortest or self._whole(each):
                continue  # children of a shorter one may come before it
            if self._to_open(each, counts[each.length]):
                shortest = each.length
                if each.path not in self._known:
                    chosen.append(each.path)
            counts[each.length] += 1
        self._known.update(zip(chosen, self._expander.expand(chosen, self._rules.count), strict=True))
