"""Interventions as data: what is changed on its way through the model, where, and at which positions.

Each is a frozen dataclass that knows no run; `apply.py` makes a watch of a list of them, `intervention_file.py` a
file. They act in the order in which they stand. A step is a pass that chooses a token: step s is position
num_prompt - 1 + s, so steps=(0, None) are all rows from which tokens are chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from pellucid.errors import UsageError
from pellucid.glass.sites import check_layer, check_range, check_site
from pellucid.ops.base import SITES
from pellucid.types import Float32

if TYPE_CHECKING:
    from pellucid.glass.captured import Captured

Span = tuple[int, int | None]  # [start, stop), stop None: to the end
PARTS: Final = {
    "attention": ("attn_out",),
    "mlp": ("mlp_out",),
    "layer": ("attn_out", "mlp_out"),
    "heads": ("z",),
}
HEAD_SITES: Final = ("q", "k", "v", "z")  # that consist of heads
ALWAYS: Final[Span] = (0, None)


@dataclass(frozen=True, eq=False, repr=False)
class Intervention:
    """What all have in common. Errors of every constructor: UsageError."""

    kind: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]] = ()  # fields that are float32 arrays

    def plain(self) -> dict[str, Any]:
        """The fields in plain JSON types, arrays left out."""
        found: dict[str, Any] = {"kind": self.kind}
        for field in fields(self):
            if field.name not in self.arrays:
                value = getattr(self, field.name)
                found[field.name] = list(value) if isinstance(value, tuple) else value
        return found

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or self.plain() != other.plain():
            return False
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in self.arrays)

    def __hash__(self) -> int:
        return hash(repr(self.plain()))

    def __repr__(self) -> str:
        """Arrays by their shapes."""
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            shape = " x ".join(map(str, value.shape)) if field.name in self.arrays else ""
            parts.append(f"{field.name}=<float32 {shape}>" if shape else f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_place(self, allowed: tuple[str, ...] = SITES) -> None:
        """layer, site, positions and steps, those that there are."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "layer":
                self._set(layer=check_layer(value))
            elif field.name == "site":
                check_site(value, allowed)
            elif field.name == "positions":
                self._set(positions=check_range(value, "positions"))
            elif field.name == "steps" and value is not None:
                self._set(steps=check_range(value, "steps"))
            elif field.name == "heads":
                self._set(heads=_check_heads(value))


@dataclass(frozen=True, eq=False, repr=False)
class Steer(Intervention):
    """x + scale * vector (Turner et al. 2023, arXiv 2308.10248; Rimsky et al. 2023, 2312.06681). vector: [width of the
    site]; of site "final" the layer does not matter."""

    kind: ClassVar[str] = "steer"
    arrays: ClassVar[tuple[str, ...]] = ("vector",)

    vector: Float32
    layer: int
    site: str = "resid_post"
    scale: float = 1.0
    positions: Span = ALWAYS
    steps: Span | None = None

    def __post_init__(self) -> None:
        self._check_place()
        self._set(vector=check_array(self.vector, "vector", 1), scale=_number(self.scale, "scale"))


@dataclass(frozen=True, eq=False, repr=False)
class Patch(Intervention):
    """These values in place of what was computed, at positions from `start` on: activation patching (Meng et al. 2022,
    arXiv 2202.05262; Wang et al. 2022, 2211.00593). values: [positions, width of the site]."""

    kind: ClassVar[str] = "patch"
    arrays: ClassVar[tuple[str, ...]] = ("values",)

    values: Float32
    layer: int
    site: str = "resid_post"
    start: int = 0

    def __post_init__(self) -> None:
        self._check_place()
        self._set(values=check_array(self.values, "values", 2), start=check_layer(self.start, "start"))
        if self.start < 0:
            raise UsageError(f"start: expected a position from 0 on, got {self.start}")

    @classmethod
    def of(
        cls,
        captured: Captured,
        layer: int,
        site: str = "resid_post",
        positions: Span = ALWAYS,
        to: int | None = None,
    ) -> Patch:
        """What another run had at these positions, put at the same ones here, or from position `to` on.
        UsageError: that run's capture lacks some of them."""
        start, stop = check_range(positions, "positions")
        there = captured.positions
        chosen = (there >= start) & (there < (np.iinfo(np.int32).max if stop is None else stop))
        found = there[chosen]
        complete = len(found) and found[0] == start and found[-1] - start + 1 == len(found)
        if not complete or (stop is not None and found[-1] != stop - 1):
            end = "the end" if stop is None else str(stop - 1)
            raise UsageError(
                f"positions: expected all from {start} to {end} to be captured, found {len(found)}"
            )
        return cls(captured.at(site, layer)[chosen], layer, site, start if to is None else to)


@dataclass(frozen=True, eq=False, repr=False)
class ZeroAblate(Intervention):
    """Zeros in place of what a part of a layer adds: part "attention", "mlp", "layer" (both), or "heads": of the heads
    named, before the output projection."""

    kind: ClassVar[str] = "zero_ablate"

    layer: int
    part: str = "layer"
    heads: tuple[int, ...] = ()
    positions: Span = ALWAYS
    steps: Span | None = None

    def __post_init__(self) -> None:
        self._check_place()
        _check_part(self.part, self.heads, tuple(PARTS))


@dataclass(frozen=True, eq=False, repr=False)
class MeanAblate(Intervention):
    """`mean` in place of what a part of a layer adds, such as `Captured.mean` of many texts. mean: [width], with part
    "heads" [heads * head_dim] of all heads."""

    kind: ClassVar[str] = "mean_ablate"
    arrays: ClassVar[tuple[str, ...]] = ("mean",)

    mean: Float32
    layer: int
    part: str = "attention"
    heads: tuple[int, ...] = ()
    positions: Span = ALWAYS
    steps: Span | None = None

    def __post_init__(self) -> None:
        self._check_place()
        self._set(mean=check_array(self.mean, "mean", 1))
        _check_part(self.part, self.heads, ("attention", "mlp", "heads"))


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Intervention):
    """x * factor; of the heads named, at sites that consist of heads (q, k, v, z), or of the whole row."""

    kind: ClassVar[str] = "scale"

    factor: float
    layer: int
    site: str = "resid_post"
    heads: tuple[int, ...] = ()
    positions: Span = ALWAYS
    steps: Span | None = None

    def __post_init__(self) -> None:
        self._check_place()
        self._set(factor=_number(self.factor, "factor"))
        if self.heads and self.site not in HEAD_SITES:
            raise UsageError(f"heads: site {self.site} has none; expected one of {', '.join(HEAD_SITES)}")


@dataclass(frozen=True, eq=False, repr=False)
class ForceToken(Intervention):
    """The token of step `step` is this one: the parameter `force_at`, as an intervention."""

    kind: ClassVar[str] = "force_token"

    step: int
    token_id: int

    def __post_init__(self) -> None:
        self._set(step=check_layer(self.step, "step"), token_id=check_layer(self.token_id, "token_id"))
        if self.step < 0 or self.token_id < 0:
            raise UsageError(
                f"step, token_id: expected numbers from 0 on, got {self.step} and {self.token_id}"
            )


KINDS: Final[dict[str, type[Intervention]]] = {
    kind.kind: kind for kind in (Steer, Patch, ZeroAblate, MeanAblate, Scale, ForceToken)
}


def check_interventions(given: object) -> tuple[Intervention, ...]:
    """UsageError: something else than interventions."""
    items = (given,) if isinstance(given, Intervention) else given
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise UsageError(f"interventions: expected a list of interventions, got {type(given).__name__}")
    for item in items:
        if not isinstance(item, Intervention):
            raise UsageError(
                f"interventions: expected {', '.join(k.__name__ for k in KINDS.values())}, got {item!r:.60}"
            )
    return tuple(items)


def check_array(value: object, what: str, dimensions: int) -> Float32:
    """A read-only copy. UsageError: not finite numbers in so many dimensions."""
    try:
        with np.errstate(over="ignore"):  # what is too large is told below
            array = np.array(value, np.float32)
    except (TypeError, ValueError):
        raise UsageError(f"{what}: expected an array of numbers, got {type(value).__name__}") from None
    if array.ndim != dimensions or array.size == 0:
        raise UsageError(f"{what}: expected numbers in {dimensions} dimension(s), got shape {array.shape}")
    wrong = array.size - np.count_nonzero(np.isfinite(array))
    if wrong:
        raise UsageError(
            f"{what}: expected finite numbers (float32), got {wrong} of {array.size} that are not"
        )
    array.flags.writeable = False
    return array


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not np.isfinite(value):
        raise UsageError(f"{what}: expected a finite number, got {value!r:.40}")
    return float(value)


def _check_heads(value: object) -> tuple[int, ...]:
    items = (value,) if isinstance(value, int) else value
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise UsageError(f"heads: expected a list of head numbers, got {value!r:.40}")
    heads = tuple(sorted({check_layer(item, "heads") for item in items}))
    if heads and heads[0] < 0:
        raise UsageError(f"heads: expected numbers from 0 on, got {heads[0]}")
    return heads


def _check_part(part: object, heads: tuple[int, ...], allowed: tuple[str, ...]) -> None:
    if part not in allowed:
        raise UsageError(f"part: expected one of {', '.join(allowed)}, got {part!r:.40}")
    if (part == "heads") != bool(heads):
        raise UsageError(
            f'heads: expected with part "heads", and only there, got part {part!r} and heads {heads}'
        )
