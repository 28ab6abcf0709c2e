"""What llguidance refuses of a schema, told with its place in the schema and what to do instead."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

Nodes = Iterator[tuple[str, dict[str, Any]]]  # (JSON pointer, schema) of every schema in a schema

_WHOLE_OBJECTS = "write the cases out as an anyOf of whole objects"
_AFTERWARDS = "check it in the finished JSON"
_INSTEAD = {
    "not": "say what is allowed instead (type, enum, pattern)",
    "oneOf": "write anyOf, if no value satisfies two of them",
    **dict.fromkeys(
        ("if", "then", "else", "dependentSchemas", "dependencies", "dependentRequired"), _WHOLE_OBJECTS
    ),
    **dict.fromkeys(("contains", "minContains", "maxContains", "uniqueItems"), _AFTERWARDS),
    "propertyNames": "write patternProperties with additionalProperties false",
    "unevaluatedProperties": "write additionalProperties, with all properties in one schema",
    "unevaluatedItems": "write items false after prefixItems",
    **dict.fromkeys(("$dynamicRef", "$recursiveRef"), "write $ref"),
    "$ref": "put what it refers to under $defs of this schema",
    "format": "write a pattern",
}

# What a message begins with, or contains -> the keyword that it is about, and the value if that is told.
_MESSAGES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[list[str], Any]]], ...] = (
    (re.compile(r"Unimplemented keys: (\[.*?\])"), lambda m: (json.loads(m[1]), None)),
    (re.compile(r"^(\w+) constraints are not supported"), lambda m: ([m[1]], None)),
    (re.compile(r"^Unknown format: (.*)"), lambda m: (["format"], m[1])),
    (re.compile(r"^Invalid type: (.*)"), lambda m: (["type"], m[1])),
    (re.compile(r"^Resource '(.*?)'"), lambda m: (["$ref"], m[1])),
    (re.compile(r"^Pointer '(.*?)' does not exist"), lambda m: (["$ref"], "#" + m[1])),
    (re.compile(r"^Expected .* for '(\w+)'"), lambda m: ([m[1]], None)),
    (re.compile(r"^regex parse error"), lambda m: (["pattern"], None)),
)


def explained(message: str, nodes: Nodes) -> str:
    """The message with the first place that it is about, where that is found, and with what to do."""
    for pattern, about in _MESSAGES:
        found = pattern.search(message)
        if found is None:
            continue
        keywords, value = about(found)
        where = _place(nodes, keywords, value)
        place = f" (at {where})" if where else ""
        advice = next((_INSTEAD[keyword] for keyword in keywords if keyword in _INSTEAD), "")
        if message.startswith(("Unimplemented", "oneOf")):
            named = ", ".join(f'"{keyword}"' for keyword in keywords)
            told = f"{named}{place} cannot be followed"
            advice = ", or ".join(filter(None, (advice, "leave it out with json_lenient=True")))
        else:
            told = message + place
        return f"{told}; {advice}" if advice else told
    return message


def _place(nodes: Nodes, keywords: list[str], value: Any) -> str | None:
    for pointer, node in nodes:
        for keyword in keywords:
            if keyword in node and (value is None or value in (node[keyword], *_listed(node[keyword]))):
                return f"{pointer}/{keyword}"
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
