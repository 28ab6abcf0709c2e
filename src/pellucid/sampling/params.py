"""SamplingParams: how one request wants its tokens. The processors' parameters come from their own fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Any, cast

from pellucid.errors import UsageError
from pellucid.sampling import constraint
from pellucid.sampling.base import LogitsProcessor, fields_of, parameter, samplers
from pellucid.sampling.limits import SWITCHES, RequestLimits
from pellucid.sampling.order import arrange, preset_of
from pellucid.sampling.parameters import Parameter, parameters_of
from pellucid.sampling.speculation import Speculating
from pellucid.sampling.values import largest_id


class _Core:
    """Declares the parameters that are the request's own."""

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
    order: tuple[str, ...] = parameter(
        ("pellucid",),
        "names",
        "the order of the stages: pellucid, or hf, vllm, llamacpp (the order, tie and scope rules of these "
        "engines), or the names of stages",
    )
    min_keep: int = parameter(
        1,
        "int",
        "a cut (top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, xtc) leaves at least this many tokens",
        minimum=1,
        maximum=2**31 - 1,
    )
    ties: str = parameter(
        "id",
        "choice",
        "of equals at the edge of a cut by rank (top_k, typical_p, min_keep), the lowest ids stay, or all",
        choices=("id", "all"),
    )


@functools.cache
def _all_parameters() -> dict[str, Parameter]:
    found = parameters_of(_Core) + parameters_of(RequestLimits) + parameters_of(Speculating)
    for name in sorted(samplers, key=lambda name: (samplers[name].order, name)):
        found += parameters_of(samplers[name], name)
    table = {p.name: p for p in found}
    if len(table) != len(found):
        raise RuntimeError("two logits processors declare the same parameter")
    return table


def _defaults(order: tuple[str, ...]) -> dict[str, Any]:
    """What every parameter is if it is not given: the rules of the order, else its default."""
    return {name: p.default for name, p in _all_parameters().items()} | dict(preset_of(order).rules)


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

    __slots__ = ("_bindings", "_hash", "_off", "_values")
    __signature__ = _Signature()
    _values: dict[str, Any]
    _off: dict[str, Any]

    max_tokens: int | None
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    ignore_eos: bool
    n: int
    seed: int | None
    logprobs: int | None
    order: tuple[str, ...]
    min_keep: int
    ties: str
    deadline: float | None
    overflow: str
    slide_keep: int
    slide_drop: int | None
    speculation: str
    max_drafts: int
    temperature: float
    min_p: float
    min_tokens: int
    guidance_scale: float
    negative_prompt: str | tuple[int, ...] | None

    def __init__(self, **values: Any) -> None:
        table = _all_parameters()
        for name in values:
            if name not in table:
                from difflib import get_close_matches

                near = get_close_matches(name, table, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(table)}"
                raise UsageError(f"no sampling parameter '{name}'; {hint}")
        order = table["order"].check(values.get("order", table["order"].default))
        checked = _defaults(order) | {
            name: p.check(values[name]) for name, p in table.items() if name in values
        }
        object.__setattr__(self, "_values", checked)
        object.__setattr__(self, "_bindings", {})
        off = {switch: checked[switch] for switch, _ in SWITCHES.values() if switch in values}
        object.__setattr__(self, "_off", {name: v for name, v in off.items() if v == table[name].default})
        object.__setattr__(self, "_hash", hash(tuple(checked.values())))
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise UsageError(
                f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}; lower it"
            )
        allowed, banned = self._values["allowed_ids"], self._values["banned_ids"]
        if allowed is not None and not set(allowed) - set(banned):
            raise UsageError("allowed_ids and banned_ids leave no token to choose; allow at least one")
        self.stages()  # each processor checks its own fields against one another

    @classmethod
    def fields(cls) -> tuple[Parameter, ...]:
        """Every parameter: the request's own, then the processors' in the order in which they run."""
        return tuple(_all_parameters().values())

    @property
    def greedy(self) -> bool:
        """Whether the choice is the largest logit, without noise."""
        return self.temperature == 0

    def stages(self) -> dict[str, LogitsProcessor]:
        """The logits processors that are not the identity, by name, in the order in which they run."""
        wanted = self._wanted()
        return {name: self._build(name) for name in arrange(self.order, wanted)}

    def processors(self) -> list[LogitsProcessor]:
        """The processors of `stages`."""
        return list(self.stages().values())

    def _wanted(self) -> dict[str, list[str]]:
        """Each stage that is on: the parameters of it that were set. What only modifies turns nothing on."""
        given = self.non_defaults()
        switched = [p for name, p in _all_parameters().items() if name in given and p.processor]
        names = dict.fromkeys(p.processor for p in switched if p.processor and not p.modifies)
        return {stage: [p.name for p in switched if p.processor == stage] for stage in names}

    def set_of(self, stages: Iterable[str]) -> list[str]:
        """The parameters that were set of these stages."""
        wanted = self._wanted()
        return [name for stage in stages for name in wanted[stage]]

    def _build(self, stage: str) -> LogitsProcessor:
        kind: Any = samplers[stage]
        values = {
            name: self._bindings.get(f.metadata["bound"]) if "bound" in f.metadata else self._values[name]
            for name, f in fields_of(kind).items()
        }
        return cast(LogitsProcessor, kind(**values))

    def constraint_source(self) -> tuple[str, str, bool, bool] | None:
        """The fields of `constraints.base.Source`; None: the output is not constrained."""
        if not any(self._values[name] for name in constraint.KINDS):
            return None
        return cast(Any, self._build("constraint")).source  # type: ignore[no-any-return]

    def bound(self, compiled: Any = None, *, breakers: Any = None) -> SamplingParams:
        """The same for the vocabulary of an LLM: its constraint compiled (`LLM.compile_constraint`), the texts of
        dry_breakers as token ids. None: as it was."""
        copy = SamplingParams(**self.said())
        new = {"constraint": compiled, "breakers": breakers}
        given = {name: value for name, value in new.items() if value is not None}
        object.__setattr__(copy, "_bindings", {**self._bindings, **given})
        return copy

    @property
    def text_breakers(self) -> tuple[str, ...]:
        """The breakers of dry that are texts, where dry is on."""
        texts = tuple(each for each in self._values["dry_breakers"] if isinstance(each, str))
        return texts if self._values["dry_multiplier"] else ()

    def idle_stages(self) -> set[str]:
        """Stages that cannot change the choice because it is greedy."""
        if not self.greedy:
            return set()
        skipped = preset_of(self.order).greedy_skips
        return {name for name in samplers if samplers[name].keeps_argmax or name in skipped}

    def without_effect(self) -> dict[str, str]:
        """Parameters that were set but change nothing: name -> why."""
        given, table, idle = self.non_defaults(), _all_parameters(), self.idle_stages()
        why: dict[str, str] = {}
        for name in given:
            p = table[name]
            if p.processor in idle or (name == "seed" and self.greedy):
                why[name] = "temperature is 0"
            elif p.modifies and not any(switch in given for switch in p.modifies):
                why[name] = f"{' or '.join(p.modifies)} is not set"
        return why

    def check_vocabulary(self, vocabulary_size: int) -> None:
        """UsageError if a token id is not below vocabulary_size, or more alternatives are asked for than
        exist."""
        for name, p in _all_parameters().items():
            largest = largest_id(p.kind, self._values[name])
            if largest >= vocabulary_size:
                raise UsageError(
                    f"{name}: token id {largest} is not in the vocabulary (0 to {vocabulary_size - 1})"
                )
        if self.logprobs is not None and self.logprobs > vocabulary_size:
            raise UsageError(
                f"logprobs={self.logprobs} is more than the vocabulary's {vocabulary_size} tokens"
            )

    def replace(self, **changes: Any) -> SamplingParams:
        """A copy with these parameters changed. What the order gave, and not the caller, is given anew."""
        changed = SamplingParams(**{**self.said(), **changes})
        kept = {}
        if changed.constraint_source() == self.constraint_source():
            kept["compiled"] = self._bindings.get("constraint")
        if changed.text_breakers == self.text_breakers:
            kept["breakers"] = self._bindings.get("breakers")
        return changed.bound(**kept) if any(each is not None for each in kept.values()) else changed

    def to_dict(self) -> dict[str, Any]:
        """Every parameter by name, in plain JSON types; SamplingParams(**d) gives it back (functions of Python
        become their names, which it refuses)."""
        kinds = _all_parameters()
        return {name: kinds[name].plain(value) for name, value in self._values.items()}

    def non_defaults(self) -> dict[str, Any]:
        """The parameters that differ from what they would be if only `order` were given, by name."""
        usual = _defaults(self.order) | {"order": _all_parameters()["order"].default}
        return {name: v for name, v in self._values.items() if v != usual[name]}

    def said(self) -> dict[str, Any]:
        """`non_defaults`, and the switches that were set to off in so many words (see `limits.check_switches`)."""
        return self._off | self.non_defaults()

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
