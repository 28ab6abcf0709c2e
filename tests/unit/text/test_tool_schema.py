"""Tools for chat templates: what a function's annotations and docstring say, and what is refused."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from pellucid.errors import UsageError
from pellucid.text.tool_schema import tool_schema, tool_schemas


def weather(city: str, days: int = 3, unit: Literal["c", "f"] = "c", tags: list[str] | None = None,
            x: int | str = 1, m: dict[str, float] = {}) -> str:  # noqa: B006 # fmt: skip
    """The weather of a city.

    Args:
        city: Where it is,
            in words.
        days: How many.

    Returns:
        A text.
    """
    return city


def test_a_function() -> None:
    assert tool_schema(weather)["function"] == {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where it is, in words."},
                "days": {"type": "integer", "description": "How many."},
                "unit": {"type": "string", "enum": ["c", "f"]},
                "tags": {"type": "array", "items": {"type": "string"}, "nullable": True},
                "x": {"type": ["integer", "string"]},
                "m": {"type": "object", "additionalProperties": {"type": "number"}},
            },
            "required": ["city"],
        },
    }


def test_the_library_of_the_field_says_the_same() -> None:
    utils = pytest.importorskip("transformers.utils", reason="transformers is not installed here")
    assert utils.get_json_schema(weather) == tool_schema(weather)


def test_schemas_pass_as_they_are() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    assert tool_schema({"type": "function", "function": function}) == tool_schema(function)
    assert tool_schemas(None) == []


def no_docstring(x: int) -> None: ...


def no_annotation(x):  # type: ignore[no-untyped-def]
    """D."""


def odd_type(x: bytes) -> None:
    """D."""


def many(*x: int) -> None:
    """D."""


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        ([no_docstring], "has no docstring"),
        ([no_annotation], "has no type annotation"),
        ([odd_type], "has no JSON schema"),
        ([many], "cannot be given by name"),
        ([5], "expected a Python function"),
        ("f", "expected a list"),
        ({"name": "f"}, "expected a list"),
        ([{"function": {}}], "a schema is"),
        ([{"type": "function", "function": {"name": "f", "parameters": 5}}], "a JSON schema"),
        ([weather, weather], "two tools have the name"),
    ],
)
def test_refusals(tools: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        tool_schemas(tools)
    assert "\n" not in str(caught.value)
