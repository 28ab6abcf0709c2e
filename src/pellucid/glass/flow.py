"""Capture: which activations of a sequence are kept, and what that costs. Plain data; `store.py` does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pellucid.errors import UsageError
from pellucid.glass.sites import check_layer, check_range, check_site, site_layers, site_width
from pellucid.models.base import Model

PIECE: Final = 32  # positions for which memory is taken at a time
DTYPES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}  # bytes of a value
GIB: Final = 1 << 30


class HasModel(Protocol):
    """An LLM."""

    @property
    def model(self) -> Model: ...


@dataclass(frozen=True)
class Capture:
    """Which activations are kept of a prompt and of every token that follows it.

    sites: of `ops.base.SITES`. layers: None: all; negative numbers count from the end; a mapping gives each site its
    own. positions: "all", "prompt",
    "generated" (from the last token of the prompt on: the rows from which tokens were chosen), or (start, stop), stop
    None: to the end. reduce: None, or "norm": the L2 norm of each row in place of its values. dtype: "float32" (the
    very bits), "float16" (an error where a value is beyond 65504) or "bfloat16" (rounded to nearest, ties to even).
    budget: the most bytes that one sequence's capture takes, files included; None: no limit. when_full: "error" (the
    request ends with an error before the pass that would exceed the budget, or at once where max_tokens says that it
    will) or "stop" (the generation goes on, `Captured.missing` tells what was left out). reuse: False: positions that
    are wanted are computed even where the prefix cache has them; True: they are taken, and told in `missing`.
    to: a folder for safetensors shards (docs/capture.md), so that memory stays small; it must not exist or be empty.

    Row p is what flowed at position p, whose end predicts token p + 1. The last token of a finished generation was
    never computed, and has no row. Errors: UsageError.
    """

    sites: tuple[str, ...] = ("resid_post",)
    layers: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None
    positions: str | tuple[int, int | None] = "all"
    reduce: str | None = None
    dtype: str = "float32"
    budget: int | None = GIB
    when_full: str = "error"
    reuse: bool = False
    to: Path | None = None

    def __post_init__(self) -> None:
        def set_(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        given = (self.sites,) if isinstance(self.sites, str) else tuple(self.sites)
        if not given:
            raise UsageError("sites: expected at least one")
        set_("sites", tuple(dict.fromkeys(check_site(site) for site in given)))
        if isinstance(self.layers, Mapping):
            for site in self.layers:
                if site not in self.sites:
                    raise UsageError(f"layers: {site!r:.40} is none of the sites {', '.join(self.sites)}")
            set_("layers", {site: _check_layers(layers) for site, layers in self.layers.items()})
        elif self.layers is not None:
            set_("layers", _check_layers(self.layers))
        if self.positions not in ("all", "prompt", "generated"):
            set_("positions", check_range(self.positions, 'positions: "all", "prompt", "generated" or'))
        _check_choice("reduce", self.reduce, (None, "norm"))
        _check_choice("dtype", self.dtype, tuple(DTYPES))
        _check_choice("when_full", self.when_full, ("error", "stop"))
        if self.budget is not None and check_layer(self.budget, "budget") < 1:
            raise UsageError(f"budget: expected a number of bytes from 1 on, or None, got {self.budget}")
        if not isinstance(self.reuse, bool):
            raise UsageError(f"reuse: expected True or False, got {self.reuse!r:.40}")
        if self.to is not None:
            set_("to", Path(self.to))

    def layers_of(self, model: Model) -> dict[str, tuple[int, ...]]:
        """By site: the layers that are kept. UsageError: the model has no such layer."""
        own = self.layers if isinstance(self.layers, Mapping) else dict.fromkeys(self.sites, self.layers)
        return {site: site_layers(model, site, own.get(site)) for site in self.sites}

    def widths(self, model: Model) -> dict[str, int]:
        """By site: values that are kept of one position and layer."""
        return {site: 1 if self.reduce else site_width(model, site) for site in self.sites}

    def position_bytes(self, model: Model) -> int:
        """Bytes of one position."""
        widths = self.widths(model)
        values = sum(len(layers) * widths[site] for site, layers in self.layers_of(model).items())
        return values * DTYPES[self.dtype]

    def span(self, num_prompt: int) -> tuple[int, int | None]:
        """[start, stop) of the positions that are kept; stop None: to the end."""
        if isinstance(self.positions, tuple):
            return self.positions
        return {"all": (0, None), "prompt": (0, num_prompt), "generated": (num_prompt - 1, None)}[
            self.positions
        ]

    def cost(self, llm: HasModel, tokens: int, num_prompt: int | None = None) -> int:
        """Bytes that the capture takes of a sequence of so many tokens (prompt and output), num_prompt of them the
        prompt (None: all; it matters where `positions` says so). The last token counts: it is computed unless it
        was generated. Memory is taken for 32 positions at a time; this is rounded up to that."""
        start, stop = self.span(tokens if num_prompt is None else num_prompt)
        kept = max(0, min(tokens, tokens if stop is None else stop) - start)
        return -(-kept // PIECE) * PIECE * self.position_bytes(llm.model)

    def check_fits(self, llm: HasModel, num_prompt: int, max_tokens: int | None) -> None:
        """UsageError: the budget does not hold what is known to come (max_tokens None: the prompt)."""
        tokens = num_prompt + (max_tokens or 1) - 1
        needed = self.cost(llm, tokens, num_prompt)
        if self.when_full == "error" and self.budget is not None and needed > self.budget:
            raise UsageError(
                f"capture: {tokens} positions take {needed} bytes, more than the budget of {self.budget}; raise it, "
                'capture fewer sites, layers or positions, lower max_tokens, or give when_full="stop"'
            )


def _check_layers(given: Any) -> tuple[int, ...]:
    layers = tuple(
        check_layer(layer, "layers") for layer in (given if isinstance(given, Iterable) else (given,))
    )
    if not layers:
        raise UsageError("layers: expected at least one, or None for all")
    return layers


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r:.40}")
