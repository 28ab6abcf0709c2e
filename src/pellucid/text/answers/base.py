"""What a family of answer formats says of itself. To add one, copy hermes.py.

A family names the markers of its tool calls and reads what stands between them. The scanning, the holding back of
what could become a marker, and the conservation of every character are in parser.py, the same for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from pellucid.registry import Registry

# name of a tool -> its parameters (a JSON schema)
Schemas = Mapping[str, Mapping[str, Any]]
# name, arguments, and the id that the model gave (None: none)
Call = tuple[str, dict[str, Any], str | None]


@dataclass(frozen=True)
class CallSyntax:
    """One way to write tool calls.

    opening, closing: the markers. closing "": to the end of the answer, or the next `opening`.
    read: the calls of the text between them; ValueError: it is none.
    json: the text is JSON, so a marker inside of its strings is no marker.
    """

    opening: str
    closing: str
    read: Callable[[str, Schemas], list[Call]]
    json: bool = True


class AnswerFormat:
    """A family. `beginnings`: an answer that begins so, white space aside, is a tool call from its first
    character to its last, without any marker; `read_bare` reads it."""

    syntaxes: ClassVar[tuple[CallSyntax, ...]] = ()
    beginnings: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def matches(template: str) -> bool:
        """Whether a model with this chat template writes so."""
        raise NotImplementedError

    @staticmethod
    def read_bare(body: str, schemas: Schemas) -> list[Call]:
        raise ValueError("this family marks its calls")


formats: Registry[type[AnswerFormat]] = Registry("pellucid.text.answers")

# The pairs of markers around reasoning, as the templates of the models write them.
REASONING = (
    ("<think>", "</think>"),  # Qwen3, SmolLM3, DeepSeek-R1, QwQ, ...
    ("[THINK]", "[/THINK]"),  # Mistral
    ("<|channel>thought\n", "<channel|>"),  # Gemma 4
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    ("<think_on>", "</think_on>"),
)


def format_of(template: str) -> str:
    """The name of the family of a chat template; "plain": of none."""
    return next((name for name in formats if formats[name].matches(template)), "plain")


def reasoning_of(template: str) -> tuple[tuple[str, str], ...]:
    """The reasoning markers that a chat template knows."""
    return tuple(pair for pair in REASONING if any(mark.strip() in template for mark in pair))


def read_json(text: str) -> Any:
    """JSON as its standard has it (RFC 8259: no NaN). ValueError: it is none, or is nested too deep."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def json_values(text: str, separators: str = "") -> list[Any]:
    """JSON values one after the other, with white space and any of `separators` between them. ValueError."""
    decoder, at = json.JSONDecoder(parse_constant=_refuse), 0
    values: list[Any] = []
    while True:
        while at < len(text) and (text[at].isspace() or (values and text[at] in separators)):
            at += 1
        if at == len(text):
            break
        try:
            value, at = decoder.raw_decode(text, at)
        except RecursionError:
            raise ValueError("nested too deep") from None
        values.append(value)
    if not values:
        raise ValueError("there is nothing")
    return values


def call_of(value: Any) -> Call:
    """A call from {"name": ..., "arguments" or "parameters": ...}, perhaps inside of {"function": ...}."""
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    own_id = value.get("id")
    if isinstance(value.get("function"), dict):
        value = value["function"]
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("expected a name")
    given = [value[key] for key in ("arguments", "parameters") if key in value]
    return name, arguments_of(given[0] if given else {}), own_id if isinstance(own_id, str) else None


def arguments_of(value: Any) -> dict[str, Any]:
    """Arguments as an object; an object written as a JSON string counts. ValueError."""
    if isinstance(value, str):
        value = read_json(value)
    if not isinstance(value, dict):
        raise ValueError("expected the arguments to be an object")
    return value


def calls_of(values: Sequence[Any]) -> list[Call]:
    """The calls of objects, and of arrays of objects."""
    return [call_of(item) for value in values for item in (value if isinstance(value, list) else [value])]
