"""Who looks at a pass: the watches of its sequences as the one that the model and the backend see."""

from __future__ import annotations

from functools import lru_cache

from pellucid.engine.scheduler import Plan
from pellucid.ops.base import LATE_SITES
from pellucid.types import Float32, Watch

Places = frozenset[tuple[str, int]]  # (site, layer)


class Watching:
    """types.PassWatch. Each watch is given its own sequence's rows, and no others."""

    def __init__(self, parts: list[tuple[Watch, int, int, int]]) -> None:
        """parts: (watch, first row in the pass, rows, position of the first row), at least one."""
        self._parts = parts
        self.looks = parts[0][0].looks
        self.changes = False
        for watch, *_ in parts:
            if watch.looks is not self.looks and watch.looks != self.looks:
                self.looks = _union(self.looks, watch.looks)
            self.changes = self.changes or bool(watch.changes)
        self._places = (
            self.looks.union(*(watch.changes for watch, *_ in parts)) if self.changes else self.looks
        )

    @classmethod
    def of(cls, plan: Plan) -> Watching | None:
        """None: nobody watches."""
        parts = []
        row = 0
        for sequence, rows in plan:
            if sequence.watch is not None:
                parts.append((sequence.watch, row, rows, sequence.num_computed))
            row += rows
        return cls(parts) if parts else None

    def keeps_rows(self, num_layers: int) -> bool:
        """Whether all rows have to go through the whole of the last layer."""
        return _needs_rows(self._places, num_layers)

    def __call__(self, site: str, layer: int, x: Float32) -> Float32:
        place = (site, layer)
        if place not in self._places:
            return x
        out = x
        for watch, row, rows, start in self._parts:
            part = slice(row, row + rows)
            if place in watch.changes:
                own = out[part]
                new = watch.change(site, layer, start, own)
                if new is not own:
                    out = out.copy() if out is x else out
                    out[part] = new
            if place in watch.looks:
                watch.take(site, (layer,), start, out[None, part])
        return out

    def take(self, rows: dict[str, Float32]) -> None:
        for watch, row, count, start in self._parts:
            for site, layers, chosen in _layers(watch.looks, self.looks):
                part = rows[site][:, row : row + count]
                watch.take(site, layers, start, part if chosen is None else part[list(chosen)])


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
def _needs_rows(places: Places, num_layers: int) -> bool:
    return any(site in LATE_SITES and layer >= num_layers - 1 for site, layer in places)
