"""The sites of a model (`ops.base.SITES`): which layers have one, how wide it is, and what a caller may ask for."""

from __future__ import annotations

from collections.abc import Iterable

from pellucid.errors import UsageError
from pellucid.models.base import Model
from pellucid.ops.base import SITES

Place = tuple[str, int]  # (site, layer)

_HEADS = {"q": "query", "k": "key", "v": "value", "z": "query"}  # the matrix whose outputs are as wide


def site_width(model: Model, site: str) -> int:
    """Values of one position at this site of one layer."""
    if site not in _HEADS:
        return model.width
    return int(getattr(model.blocks[0], _HEADS[site]).shape[0])


def num_heads(model: Model) -> int:
    """Query heads of a layer."""
    return site_width(model, "q") // model.layers[0].head_dim


def site_layers(model: Model, site: str, layers: Iterable[int] | None = None) -> tuple[int, ...]:
    """The layers of this site, ascending: all (None), or those asked for. `final` has one, whose number is that of
    the layers. Negative numbers count from the end. UsageError: there is no such layer."""
    count = len(model.layers)
    if site == "final":
        return (count,)
    if layers is None:
        return tuple(range(count))
    found = set()
    for layer in layers:
        if not -count <= layer < count:
            raise UsageError(
                f"layers: expected numbers from 0 to {count - 1} (or -{count} to -1), got {layer}"
            )
        found.add(layer % count)
    return tuple(sorted(found))


def check_site(site: object, allowed: tuple[str, ...] = SITES) -> str:
    """UsageError: no site of this name, or none of `allowed`."""
    if not isinstance(site, str) or site not in allowed:
        raise UsageError(f"site: expected one of {', '.join(allowed)}, got {site!r:.40}")
    return site


def check_layer(layer: object, what: str = "layer") -> int:
    """UsageError: not an integer. Whether a model has it is checked where there is one."""
    if isinstance(layer, bool) or not hasattr(layer, "__index__"):
        raise UsageError(f"{what}: expected an int, got {layer!r:.40}")
    return int(layer.__index__())


def check_range(value: object, what: str) -> tuple[int, int | None]:
    """(start, stop), stop excluded, None: no end. UsageError: something else."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        start, stop = value
        if _is_count(start) and (stop is None or (_is_count(stop) and stop > start)):
            return int(start), None if stop is None else int(stop)
    raise UsageError(
        f"{what}: expected (start, stop) with 0 <= start < stop, or stop None, got {value!r:.60}"
    )


def _is_count(value: object) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__") and int(value.__index__()) >= 0
