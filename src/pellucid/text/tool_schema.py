"""A tool for a chat template: a JSON schema, or a Python function that is described by its annotations and docstring.

The form is the one that chat templates read: {"type": "function", "function": {"name", "description",
"parameters"}}, parameters a JSON schema of an object.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pellucid.errors import UsageError
from pellucid.text.messages import copied

Tool = Mapping[str, Any] | Callable[..., Any]

_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_ARGUMENTS = re.compile(r"^\s*(?:Args|Arguments|Parameters):\s*$", re.MULTILINE)
_SECTION = re.compile(r"^\s*(?:Returns?|Raises|Yields|Examples?|Errors?|Notes?):", re.MULTILINE)
_ARGUMENT = re.compile(r"^\s*(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def tool_schema(tool: Tool) -> dict[str, Any]:
    """The tool as templates read it. UsageError: neither a function nor a schema, or one that says too little."""
    if isinstance(tool, Mapping):
        return _checked(copied(tool))
    if not callable(tool):
        raise UsageError(
            f"tools: expected a Python function or a dict with a JSON schema, got {type(tool).__name__}"
        )
    return {"type": "function", "function": _described(tool)}


def tool_schemas(tools: Sequence[Tool] | None) -> list[dict[str, Any]]:
    """Of several. UsageError: also where two have one name."""
    if tools is None:
        return []
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence):
        raise UsageError(f"tools: expected a list of functions or schemas, got {type(tools).__name__}")
    schemas = [tool_schema(tool) for tool in tools]
    names = [schema["function"]["name"] for schema in schemas]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"tools: two tools have the name '{twice}'; give each its own")
    return schemas


def _checked(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function", tool if "name" in tool and "parameters" in tool else None)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise UsageError(
            'tools: a schema is {"type": "function", "function": {"name": ..., "description": ..., '
            f'"parameters": {{...}}}}}}; got keys {sorted(tool)}'
        )
    parameters = function.get("parameters", {"type": "object", "properties": {}})
    if not isinstance(parameters, dict):
        raise UsageError(f"tools: '{function['name']}': expected parameters to be a JSON schema (a dict)")
    return {"type": "function", "function": {**function, "parameters": parameters}}


def _described(function: Callable[..., Any]) -> dict[str, Any]:
    name = getattr(function, "__name__", type(function).__name__)
    try:
        signature, hints = inspect.signature(function), get_type_hints(function)
    except (TypeError, ValueError, NameError) as error:
        raise UsageError(f"tools: '{name}': its parameters cannot be read ({error}); give a schema") from None
    summary, described = _docstring(inspect.getdoc(function) or "")
    if not summary:
        raise UsageError(f"tools: '{name}' has no docstring; the model needs a description of what it does")
    properties, required = {}, []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UsageError(f"tools: '{name}': parameter '{parameter.name}' cannot be given by name")
        if parameter.name not in hints:
            raise UsageError(f"tools: '{name}': parameter '{parameter.name}' has no type annotation")
        schema = _schema_of(hints[parameter.name], f"'{name}': parameter '{parameter.name}'")
        if parameter.name in described:
            schema["description"] = described[parameter.name]
        properties[parameter.name] = schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    return {"name": name, "description": summary, "parameters": parameters}


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """(what stands before the sections, the descriptions of the arguments): Google's style of docstrings."""
    found = _ARGUMENTS.search(text)
    section = _SECTION.search(text)
    ends = [match.start() for match in (found, section) if match]
    summary = text[: min(ends, default=len(text))].strip()
    described: dict[str, str] = {}
    if found is None:
        return summary, described
    rest = text[found.end() :]
    after = _SECTION.search(rest)
    current, indent = None, None
    for line in rest[: after.start() if after else len(rest)].splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        match = _ARGUMENT.match(line)
        if match is not None and (indent is None or depth <= indent):
            current, indent = match[1], depth
            described[current] = match[2].strip()
        elif current is not None:
            described[current] = f"{described[current]} {line.strip()}".strip()
    return summary, described


def _schema_of(hint: Any, where: str) -> dict[str, Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if hint is Any:
        return {}
    if origin is Literal:
        kinds = {_SIMPLE.get(type(value)) for value in inner}
        kind = kinds.pop() if len(kinds) == 1 else None
        return {**({"type": kind} if kind else {}), "enum": list(inner)}
    if origin in (Union, types.UnionType):
        return _union(inner, where)
    if hint in (list, tuple, set) or origin in (list, tuple, set, Sequence):
        items = [item for item in inner if item is not Ellipsis]
        if len(items) > 1:
            raise UsageError(f"tools: {where}: a tuple of several types; use a list, or give a schema")
        return {"type": "array", **({"items": _schema_of(items[0], where)} if items else {})}
    if hint is dict or origin in (dict, Mapping):
        values = _schema_of(inner[1], where) if len(inner) == 2 else {}
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    raise UsageError(
        f"tools: {where}: the type {hint!r:.60} has no JSON schema here; use str, int, float, bool, list, dict, "
        "Literal, or give a schema"
    )


def _union(inner: Sequence[Any], where: str) -> dict[str, Any]:
    """X | None: X, or null. Others: any of them."""
    schemas = [_schema_of(item, where) for item in inner if item is not type(None)]
    nullable = len(schemas) < len(inner)
    if len(schemas) == 1:
        return {**schemas[0], "nullable": True} if nullable else schemas[0]
    if all(set(schema) == {"type"} for schema in schemas):
        merged: dict[str, Any] = {"type": [schema["type"] for schema in schemas]}
    else:
        merged = {"anyOf": schemas}
    return {**merged, "nullable": True} if nullable else merged
