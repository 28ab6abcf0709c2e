"""Who looks at a pass: the watches of its sequences as the one that the model and the backend see."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from pellucid.engine.scheduler import Plan
from pellucid.engine.sequence import Sequence
from pellucid.ops.base import LATE_SITES
from pellucid.types import Float32, Watch

Places = frozenset[tuple[str, int]]  # (site, layer)

# The part's index; for one position of it: what takes it, row [layers, width]; for any: what takes them, site, layers,
# the first one's distance from the part's first, rows [layers, positions, width], which of those layers (None: all).
RowTaker = tuple[int, Callable[[int, Float32], None], Float32]
Taker = tuple[int, Callable[..., None], str, tuple[int, ...], int, Float32, list[int] | None]


class Part(NamedTuple):
    """A watched sequence of a pass: its rows, and those of them whose logits are wanted (its last ones) among all
    whose logits are."""

    sequence: Sequence
    watch: Watch
    row: int
    rows: int
    logit_row: int
    logit_rows: int


class Watching:
    """types.PassWatch. Each watch is given its own sequence's rows, and no others. One object serves all passes in
    which the same sequences have one row each: what is found out at the first of them holds for the others."""

    def __init__(self, plan: Plan, parts: list[Part], *, repeats: bool) -> None:
        """parts: at least one. repeats: every sequence of the plan has one row, whose logits are wanted."""
        self._plan, self._parts, self._repeats = list(plan), parts, repeats
        self._starts = [part.sequence.num_computed for part in parts]  # position of each part's first row
        self.looks = parts[0].watch.looks
        self.changes = False
        for part in parts:
            watch = part.watch
            if watch.looks is not self.looks and watch.looks != self.looks:
                self.looks = _union(self.looks, watch.looks)
            self.changes = self.changes or bool(watch.changes)
        self._places = (
            self.looks.union(*(part.watch.changes for part in parts)) if self.changes else self.looks
        )
        self._kept: bool | None = None
        self._source: dict[str, Float32] | None = None
        self._row_takers: list[RowTaker] = []  # of _source
        self._takers: list[Taker] = []

    @classmethod
    def of(cls, plan: Plan, before: Watching | None = None, *, all_logits: bool = False) -> Watching | None:
        """None: nobody watches. before: of the last pass. all_logits: those of every row are wanted."""
        if before is not None and before._comes_again(plan):
            return before
        parts, row, logit_row, repeats = [], 0, 0, True
        for sequence, rows in plan:
            start = sequence.num_computed
            wanted = rows if all_logits else max(0, start + rows - max(start, sequence.first_wanted))
            if sequence.watch is not None:
                parts.append(Part(sequence, sequence.watch, row, rows, logit_row, wanted))
            repeats = repeats and rows == wanted == 1
            row, logit_row = row + rows, logit_row + wanted
        return cls(plan, parts, repeats=repeats) if parts else None

    def _comes_again(self, plan: Plan) -> bool:
        """Whether this is for this plan, too; then it is."""
        if not self._repeats or plan != self._plan:
            return False
        for sequence, _ in plan:
            if sequence.num_computed < sequence.first_wanted:
                return False
        self._starts = [part.sequence.num_computed for part in self._parts]
        return True

    def keeps_rows(self, num_layers: int) -> bool:
        """Whether all rows have to go through the whole of the last layer."""
        if self._kept is None:
            self._kept = any(
                _needs_rows(watch.looks, watch.changes, _content(watch), num_layers)
                for _, watch, *_ in self._parts
            )
        return self._kept

    def _place(self, index: int, site: str) -> tuple[int, int, int]:
        """(first row, rows, position of the first) that a part has at a site."""
        part, start = self._parts[index], self._starts[index]
        if site == "final" and not self._kept:
            return part.logit_row, part.logit_rows, start + part.rows - part.logit_rows
        return part.row, part.rows, start

    def __call__(self, site: str, layer: int, x: Float32) -> Float32:
        place = (site, layer)
        if place not in self._places:
            return x
        out = x
        for index, each in enumerate(self._parts):
            watch = each.watch
            row, rows, start = self._place(index, site)
            part = slice(row, row + rows)
            if place in watch.changes:
                own = out[part]
                new = watch.change(site, layer, start, own)
                if new is not own:
                    out = out.copy() if out is x else out
                    out[part] = new
            if rows and place in watch.looks:
                watch.take(site, (layer,), start, out[None, part])
        return out

    def take(self, rows: dict[str, Float32]) -> None:
        if rows is not self._source:
            self._source = rows
            self._row_takers, self._takers = self._delivered(rows)
        starts = self._starts
        for index, take_row, row in self._row_takers:
            take_row(starts[index], row)
        for index, take, site, layers, ahead, part, chosen in self._takers:
            take(site, layers, starts[index] + ahead, part if chosen is None else part[chosen])

    def _delivered(self, rows: dict[str, Float32]) -> tuple[list[RowTaker], list[Taker]]:
        """Who takes what of these arrays, which every replay of a program fills anew."""
        single: list[RowTaker] = []
        others: list[Taker] = []
        for index, each in enumerate(self._parts):
            watch = each.watch
            for site, layers, chosen in _layers(watch.looks, self.looks):
                row, count, start = self._place(index, site)
                if not count:
                    continue
                part, ahead = rows[site][:, row : row + count], start - self._starts[index]
                take_row = None
                if count == 1 and not ahead and chosen is None:
                    take_row = _row_taker(watch, site, layers)
                if take_row is not None:
                    single.append((index, take_row, part[:, 0]))
                else:
                    which = None if chosen is None else list(chosen)
                    others.append((index, watch.take, site, layers, ahead, part, which))
        return single, others


def _row_taker(watch: Watch, site: str, layers: tuple[int, ...]) -> Callable[[int, Float32], None] | None:
    """What a watch may have for one position at a time, in place of `take`: of (position, row [layers, width])."""
    made = getattr(watch, "row_taker", None)
    return None if made is None else made(site, layers)


def _content(watch: Watch) -> bool:
    """Whether a watch is content, at "final", with the rows whose logits are wanted."""
    return getattr(watch, "logit_rows_only", False)


@lru_cache(maxsize=256)
def _union(one: Places, other: Places) -> Places:
    """Kept, so that the same sets are the same object, whose hash is known."""
    return one | other


@lru_cache(maxsize=256)
def _layers(
    own: Places, all_looks: Places
) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...] | None], ...]:
    """By site that `own` looks at: its layers, and which of all layers looked at there they are (None: all)."""
    found = []
    for site in sorted({site for site, _ in own}):
        there = sorted(layer for name, layer in all_looks if name == site)
        mine = [layer for layer in there if (site, layer) in own]
        chosen = None if mine == there else tuple(there.index(layer) for layer in mine)
        found.append((site, tuple(mine), chosen))
    return tuple(found)


@lru_cache(maxsize=256)
def _needs_rows(looks: Places, changes: Places, logit_rows_only: bool, num_layers: int) -> bool:
    wanted = {place for place in looks if place[0] != "final"} if logit_rows_only else looks
    return any(site in LATE_SITES and layer >= num_layers - 1 for site, layer in changes | wanted)
