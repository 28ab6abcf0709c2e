"""Interventions at work: a `types.Watch` that changes the rows of its own sequence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from pellucid.errors import UsageError
from pellucid.glass.intervene import (
    HEAD_SITES,
    PARTS,
    ForceToken,
    Intervention,
    MeanAblate,
    Patch,
    Scale,
    Span,
    Steer,
    ZeroAblate,
)
from pellucid.glass.sites import Place, num_heads, site_layers, site_width
from pellucid.models.base import Model
from pellucid.types import Float32, Watch

END = 1 << 62  # the stop of a span without one
# (start, stop) of positions, and what becomes of x [positions from `first` on, width]
Change = tuple[int, int, Callable[[Float32, int], Float32]]


class InterventionWatch:
    """types.Watch. What changes nothing (a steering vector of zeros, a factor of 1) is left out. UsageError: the model
    has no such layer or head, or a vector is not as wide as its site.

    key: 16 bytes that say which numbers come out: sequences of equal tokens and keys have equal keys and values.
    """

    looks: frozenset[Place] = frozenset()

    def __init__(self, interventions: Iterable[Intervention], model: Model, num_prompt: int) -> None:
        self.interventions = tuple(interventions)
        self.num_prompt = num_prompt  # from the end of which steps count
        self._changes: dict[Place, list[Change]] = {}
        digest = hashlib.blake2b(digest_size=16)
        for intervention in self.interventions:
            if isinstance(intervention, ForceToken):
                continue
            start, stop = span_of(intervention, num_prompt)
            for place, function in _functions(intervention, model):
                self._changes.setdefault(place, []).append((start, stop, function))
                text = json.dumps([intervention.plain() | {"positions": 0, "steps": 0}, start, stop, place])
                digest.update(text.encode())
                for name in intervention.arrays:
                    digest.update(np.ascontiguousarray(getattr(intervention, name)).data)
        self.changes = frozenset(self._changes)
        self.key = digest.digest()

    def first_needed(self) -> int | None:
        return None

    def prepare(self, start: int, stop: int) -> None:
        pass

    def take(self, site: str, layers: tuple[int, ...], start: int, rows: Float32) -> None:
        pass

    def change(self, site: str, layer: int, start: int, x: Float32) -> Float32:
        out = x
        for first, stop, function in self._changes[site, layer]:
            part = slice(max(0, first - start), max(0, min(len(x), stop - start)))
            if part.start < part.stop:
                out = out.copy() if out is x else out
                out[part] = function(out[part], start + part.start)
        return out

    def cut(self, num_positions: int) -> None:
        pass

    def fork(self) -> InterventionWatch:
        return self  # it has no state


class Together:
    """types.Watch: several as one, each with what it asks for; changes act in the order of the watches."""

    def __init__(self, *watches: Watch) -> None:
        self.watches = watches
        self.looks: frozenset[Place] = frozenset().union(*(watch.looks for watch in watches))
        self.changes: frozenset[Place] = frozenset().union(*(watch.changes for watch in watches))
        self.logit_rows_only = all(
            getattr(watch, "logit_rows_only", False)
            for watch in watches
            if any(site == "final" for site, _ in watch.looks)
        )

    def first_needed(self) -> int | None:
        return min(
            (need for watch in self.watches if (need := watch.first_needed()) is not None), default=None
        )

    def prepare(self, start: int, stop: int) -> None:
        for watch in self.watches:
            watch.prepare(start, stop)

    def take(self, site: str, layers: tuple[int, ...], start: int, rows: Float32) -> None:
        for watch in self.watches:
            mine = [i for i, layer in enumerate(layers) if (site, layer) in watch.looks]
            if len(mine) == len(layers):
                watch.take(site, layers, start, rows)
            elif mine:
                watch.take(site, tuple(layers[i] for i in mine), start, rows[mine])

    def change(self, site: str, layer: int, start: int, x: Float32) -> Float32:
        for watch in self.watches:
            if (site, layer) in watch.changes:
                x = watch.change(site, layer, start, x)
        return x

    def cut(self, num_positions: int) -> None:
        for watch in self.watches:
            watch.cut(num_positions)

    def fork(self) -> Together:
        return Together(*(watch.fork() for watch in self.watches))


def interventions_of(watch: Watch | None) -> tuple[Intervention, ...]:
    """Those of a sequence's watch, by positions: what counts as its prompt may have changed since it began."""
    if isinstance(watch, InterventionWatch):
        return at_positions(watch.interventions, watch.num_prompt)
    if isinstance(watch, Together):
        return tuple(each for inner in watch.watches for each in interventions_of(inner))
    return ()


def span_of(intervention: Intervention, num_prompt: int) -> tuple[int, int]:
    """[start, stop) of positions."""
    if isinstance(intervention, Patch):
        return intervention.start, intervention.start + len(intervention.values)
    positions: Span = getattr(intervention, "positions", (0, None))
    steps: Span | None = getattr(intervention, "steps", None)
    start, stop = positions[0], END if positions[1] is None else positions[1]
    if steps is not None:
        start = max(start, steps[0] + num_prompt - 1)
        stop = stop if steps[1] is None else min(stop, steps[1] + num_prompt - 1)
    return start, stop


def at_positions(
    interventions: Iterable[Intervention], num_prompt: int, num_positions: int = END
) -> tuple[Intervention, ...]:
    """The same with positions in place of steps, so that they mean the same whatever counts as the prompt; without
    what acts at none of the positions [0, num_positions), and without forced tokens, which are settings."""
    found: list[Intervention] = []
    for each in interventions:
        if isinstance(each, ForceToken):
            continue
        start, stop = span_of(each, num_prompt)
        if start >= min(stop, num_positions):
            continue
        if isinstance(each, Patch) and stop > num_positions:
            each = replace(each, values=each.values[: num_positions - start])
        elif getattr(each, "steps", None) is not None:
            there = {"steps": None, "positions": (start, None if stop == END else stop)}
            each = replace(each, **there)
        found.append(each)
    return tuple(found)


def _functions(
    intervention: Intervention, model: Model
) -> list[tuple[Place, Callable[[Float32, int], Float32]]]:
    if isinstance(intervention, Steer):
        place, width = _place(intervention.site, intervention.layer, model)
        delta = np.float32(intervention.scale) * _wide(intervention.vector, width, "vector", place)
        return [(place, lambda x, _: x + delta)] if delta.any() else []
    if isinstance(intervention, Patch):
        place, width = _place(intervention.site, intervention.layer, model)
        values, begin = _wide(intervention.values, width, "values", place), intervention.start
        return [(place, lambda x, first: values[first - begin : first - begin + len(x)])]
    if isinstance(intervention, Scale):
        place, width = _place(intervention.site, intervention.layer, model)
        factor, chosen = np.float32(intervention.factor), _columns(intervention.heads, place, width, model)
        return [(place, lambda x, _: np.where(chosen, x * factor, x))] if factor != 1 else []
    if not isinstance(intervention, (ZeroAblate, MeanAblate)):
        raise UsageError(f"interventions: {type(intervention).__name__} cannot be applied")
    found: list[tuple[Place, Callable[[Float32, int], Float32]]] = []
    for site in PARTS[intervention.part]:
        place, width = _place(site, intervention.layer, model)
        chosen = _columns(intervention.heads, place, width, model)
        mean = np.zeros(width, np.float32)
        if isinstance(intervention, MeanAblate):
            mean = _wide(intervention.mean, width, "mean", place)
        found.append((place, _replacing(chosen, mean)))
    return found


def _replacing(chosen: np.ndarray, value: Float32) -> Callable[[Float32, int], Float32]:
    return lambda x, _: np.where(chosen, value, x)


def _place(site: str, layer: int, model: Model) -> tuple[Place, int]:
    """(site, layer) as the model counts them, and the site's width."""
    return (site, site_layers(model, site, (layer,))[0]), site_width(model, site)


def _wide(array: Float32, width: int, what: str, place: Place) -> Float32:
    if array.shape[-1] != width:
        raise UsageError(f"{what}: expected {width} values, as {place[0]} has, got {array.shape[-1]}")
    return array


def _columns(heads: tuple[int, ...], place: Place, width: int, model: Model) -> np.ndarray:
    """Which of the values of a row: all, or those of the heads. bool [width]."""
    if not heads:
        return np.ones(width, np.bool_)
    head_dim = model.layers[place[1]].head_dim
    count = width // head_dim if place[0] in HEAD_SITES else num_heads(model)
    if heads[-1] >= count:
        raise UsageError(f"heads: {place[0]} has heads 0 to {count - 1}, got {heads[-1]}")
    return np.isin(np.arange(width) // head_dim, heads)
