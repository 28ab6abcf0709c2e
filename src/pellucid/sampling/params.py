"""SamplingParams: how one request wants its tokens. The processors' parameters come from their own fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pellucid.errors import UsageError
from pellucid.sampling.base import LogitsProcessor, parameter, samplers
from pellucid.sampling.parameters import Parameter, parameters_of


@dataclass(frozen=True)
class _Core:
    """The parameters that are the request's own."""

    max_tokens: int | None = parameter(
        None,
        "int",
        "most tokens to generate (finish reason 'length'); None: until the model ends the text or the "
        "context is full (finish reason 'context')",
        minimum=1,
        maximum=2**31 - 1,
        optional=True,
    )
    stop: tuple[str, ...] = parameter((), "strings", "strings that end the text; they are not part of it")
    stop_token_ids: tuple[int, ...] = parameter(
        (), "ids", "token ids that end the text, besides the model's own"
    )
    ignore_eos: bool = parameter(False, "bool", "go on after the model's end-of-text tokens")
    n: int = parameter(1, "int", "samples of the one prompt (it is computed once)", minimum=1, maximum=1024)
    seed: int | None = parameter(
        None,
        "int",
        "the same seed gives the same text, whatever else is running; None: a fresh one, told in the result",
        minimum=-(2**63),
        maximum=2**63 - 1,
        optional=True,
    )
    logprobs: int | None = parameter(
        None,
        "int",
        "log-probabilities of each chosen token and of this many alternatives; None: off",
        minimum=0,
        maximum=2**31 - 1,
        optional=True,
    )


@functools.cache
def _all_parameters() -> dict[str, Parameter]:
    found = parameters_of(_Core)
    for name in sorted(samplers, key=lambda name: (samplers[name].order, name)):
        found += parameters_of(samplers[name], name)
    table = {p.name: p for p in found}
    if len(table) != len(found):
        raise RuntimeError("two logits processors declare the same parameter")
    return table


class _Signature:
    """The keyword arguments of SamplingParams, for help() and editors; made when asked for."""

    def __get__(self, instance: object, owner: object) -> inspect.Signature:
        kind = inspect.Parameter.KEYWORD_ONLY
        table = _all_parameters().values()
        return inspect.Signature([inspect.Parameter(p.name, kind, default=p.default) for p in table])


class SamplingParams:
    """How one request wants its tokens: keyword arguments, checked and frozen.

    The default is greedy: temperature 0 takes the most probable token (the lowest id of equals), with no
    noise. Each other default is "off". `SamplingParams.fields()` lists every parameter with its range,
    default and help. UsageError names a parameter that is unknown, of the wrong type, not finite or out of
    range.
    """

    __slots__ = ("_hash", "_values")
    __signature__ = _Signature()
    _values: dict[str, Any]

    max_tokens: int | None
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    ignore_eos: bool
    n: int
    seed: int | None
    logprobs: int | None
    temperature: float
    min_tokens: int

    def __init__(self, **values: Any) -> None:
        table = _all_parameters()
        for name in values:
            if name not in table:
                from difflib import get_close_matches

                near = get_close_matches(name, table, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(table)}"
                raise UsageError(f"no sampling parameter '{name}'; {hint}")
        checked = {name: p.check(values[name]) if name in values else p.default for name, p in table.items()}
        object.__setattr__(self, "_values", checked)
        object.__setattr__(self, "_hash", hash(tuple(checked.values())))
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise UsageError(
                f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}; lower it"
            )
        allowed, banned = self._values["allowed_ids"], self._values["banned_ids"]
        if allowed is not None and not set(allowed) - set(banned):
            raise UsageError("allowed_ids and banned_ids leave no token to choose; allow at least one")
        self.processors()  # each processor checks its own fields against one another

    @classmethod
    def fields(cls) -> tuple[Parameter, ...]:
        """Every parameter: the request's own, then the processors' in the order in which they run."""
        return tuple(_all_parameters().values())

    @property
    def greedy(self) -> bool:
        """Whether the choice is the largest logit, without noise."""
        return self.temperature == 0

    def processors(self) -> list[LogitsProcessor]:
        """The logits processors that are not the identity, in the order in which they run."""
        groups: dict[str, dict[str, Any]] = {}
        for name, p in _all_parameters().items():
            if p.processor is not None and self._values[name] != p.default:
                groups.setdefault(p.processor, {})[name] = self._values[name]
        return [samplers[name](**values) for name, values in groups.items()]

    def without_effect(self) -> list[str]:
        """Parameters that were set but cannot change the choice, because temperature is 0."""
        if not self.greedy:
            return []
        cuts = [
            p.name for p in self.fields() if p.processor is not None and samplers[p.processor].keeps_argmax
        ]
        return [name for name in [*cuts, "seed"] if name in self.non_defaults()]

    def check_vocabulary(self, vocabulary_size: int) -> None:
        """UsageError if a token id is not below vocabulary_size, or more alternatives are asked for than
        exist."""
        for name, p in _all_parameters().items():
            value = self._values[name]
            if p.kind not in ("ids", "bias") or not value:
                continue
            largest = value[-1] if p.kind == "ids" else value[-1][0]
            if largest >= vocabulary_size:
                raise UsageError(
                    f"{name}: token id {largest} is not in the vocabulary (0 to {vocabulary_size - 1})"
                )
        if self.logprobs is not None and self.logprobs > vocabulary_size:
            raise UsageError(
                f"logprobs={self.logprobs} is more than the vocabulary's {vocabulary_size} tokens"
            )

    def replace(self, **changes: Any) -> SamplingParams:
        """A copy with these parameters changed."""
        return SamplingParams(**{**self._values, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Every parameter by name, in plain JSON types; SamplingParams(**d) gives it back."""
        kinds = _all_parameters()
        plain: dict[str, Callable[[Any], Any]] = {
            "ids": list,
            "strings": list,
            "bias": lambda pairs: {str(i): bias for i, bias in pairs},
        }
        return {
            name: plain.get(kinds[name].kind, lambda v: v)(value) if value is not None else None
            for name, value in self._values.items()
        }

    def non_defaults(self) -> dict[str, Any]:
        """The parameters that differ from their default, by name."""
        return {name: v for name, v in self._values.items() if v != _all_parameters()[name].default}

    def __getattr__(self, name: str) -> Any:
        if name != "_values" and name in self._values:
            return self._values[name]
        raise AttributeError(f"SamplingParams has no '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"SamplingParams is frozen: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("SamplingParams is frozen")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_all_parameters()]

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, SamplingParams) else NotImplemented

    def __hash__(self) -> int:
        return int(self._hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._values,)

    def __repr__(self) -> str:
        return (
            f"SamplingParams({', '.join(f'{name}={value!r}' for name, value in self.non_defaults().items())})"
        )


def _restore(values: dict[str, Any]) -> SamplingParams:
    return SamplingParams(**values)
