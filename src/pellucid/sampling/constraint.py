"""json_schema, regex, grammar, choices: only tokens that the constraint allows can be chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pellucid.arrays import as_flags
from pellucid.errors import UsageError
from pellucid.sampling.base import History, Scope, parameter, samplers, shared, stage
from pellucid.types import Float32, Int32

KINDS = ("json_schema", "regex", "grammar", "choices")


class State(Protocol):
    """Of `constraints.base.ConstraintState` what is needed here."""

    def mask(self) -> NDArray[np.uint32]: ...
    def forced(self) -> list[int]: ...
    def allows(self, ids: Sequence[int], /) -> int: ...


class Follower(Protocol):
    """Of `constraints.follower.Follower`."""

    def at(self, sample_index: int, output: Int32, /) -> State: ...


class Compiled(Protocol):
    """Of `constraints.compiled.Compiled`."""

    def follower(self) -> Follower: ...


@samplers.register("constraint")
@stage
class Constraint:
    """What follows the prompt satisfies the constraint when it ends by an end-of-text token, and can still satisfy it
    at every token before. `compiled` comes from the LLM that takes the request (`SamplingParams.bound`); without it
    a choice is refused, never left unconstrained.
    """

    order: ClassVar[int] = 50
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    json_schema: str | None = parameter(
        None,
        "schema",
        "the output is JSON that satisfies this JSON Schema (a dict, its JSON text, or a Pydantic model; on the "
        "command line JSON or a file)",
        optional=True,
    )
    regex: str | None = parameter(
        None, "text", "the whole output matches this regular expression (Rust syntax)", optional=True
    )
    grammar: str | None = parameter(
        None,
        "grammar",
        "the output follows this grammar, in Lark or GBNF (on the command line a file or its text)",
        optional=True,
    )
    choices: tuple[str, ...] = parameter((), "strings", "the output is one of these texts")
    json_whitespace: str = parameter(
        "flexible",
        "choice",
        "between the parts of JSON any white space, or none (compact)",
        choices=("flexible", "compact"),
        modifies=("json_schema",),
    )
    json_lenient: bool = parameter(
        False,
        "bool",
        "leave out keywords of the schema that cannot be followed, in place of refusing it",
        modifies=("json_schema",),
    )
    ignore_eos: bool = shared(False)
    overflow: str = shared("error")
    compiled: Compiled | None = field(default=None, compare=False, metadata={"bound": "constraint"})

    def __post_init__(self) -> None:
        given = [name for name in KINDS if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)}: give one constraint, or write a grammar for both")
        if given and self.ignore_eos:
            raise UsageError(f"ignore_eos: a text under {given[0]} must be able to end; leave one out")
        if given and self.overflow == "slide":
            raise UsageError(
                f"overflow='slide' drops tokens that {given[0]} counts on; use 'error' or 'stop'"
            )

    @property
    def source(self) -> tuple[str, str, bool, bool]:
        """The fields of `constraints.base.Source`."""
        kind = next(name for name in KINDS if getattr(self, name))
        value = getattr(self, kind)
        text = json.dumps(value, ensure_ascii=False) if kind == "choices" else value
        return kind, text, self.json_whitespace == "compact", self.json_lenient

    @cached_property
    def _follower(self) -> Follower:
        if self.compiled is None:
            raise UsageError(f"{self.source[0]} is not compiled: give these parameters to an LLM")
        return self.compiled.follower()

    def state(self, history: History) -> State:
        """Where the output of a history stands. ConstraintError: tokens put in by hand do not satisfy it."""
        follower = self._follower
        return follower.at(history.sample_index, history.token_ids[history.num_prompt :])

    def __call__(self, step: History, logits: Float32) -> Float32:
        if not any(getattr(self, name) for name in KINDS):
            return logits
        np.putmask(logits, ~as_flags(self.state(step).mask(), len(logits)), -np.inf)
        return logits


def constraint_of(stages: dict[str, Any]) -> Constraint | None:
    """The constraint among stages, if there is one."""
    found = stages.get("constraint")
    return found if isinstance(found, Constraint) else None
