"""Qwen3-Coder, Qwen3.5, Nemotron 3: calls with tags for names and for each argument.

<tool_call> <function=NAME> <parameter=KEY> VALUE </parameter> </function> </tool_call>
A value is text between its line breaks; where the tool's schema asks for another type, it is read as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pellucid.text.answers.base import AnswerFormat, Call, CallSyntax, Schemas, formats, read_json

_NAME = re.compile(r"\s*<function=([^<>\n]+)>")
_END = re.compile(r"\s*</function>\s*")
_KEY = re.compile(r"\s*<parameter=([^<>\n]+)>\n?")
_CLOSING = "</parameter>"


def _read(body: str, schemas: Schemas) -> list[Call]:
    calls: list[Call] = []
    at = 0
    while at < len(body):
        name = _NAME.match(body, at)
        if name is None:
            raise ValueError("expected <function=...>")
        at = name.end()
        arguments: dict[str, Any] = {}
        while (key := _KEY.match(body, at)) is not None:
            end = body.find(_CLOSING, key.end())
            if end < 0:
                raise ValueError("expected </parameter>")
            value = body[key.end() : end].removesuffix("\n")
            arguments[key[1]] = _typed(value, schemas.get(name[1], {}), key[1])
            at = end + len(_CLOSING)
        close = _END.match(body, at)
        if close is None:
            raise ValueError("expected </function>")
        at = close.end()
        calls.append((name[1], arguments, None))
    if not calls:
        raise ValueError("there is no call")
    return calls


def _typed(value: str, schema: Mapping[str, Any], key: str) -> Any:
    """The value as the schema types it; text where it says string, or nothing, or the text is no JSON."""
    properties = schema.get("properties")
    wanted = properties.get(key) if isinstance(properties, Mapping) else None
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if kind is None or kind == "string" or (isinstance(kind, list) and "string" in kind):
        return value
    try:
        return read_json({"True": "true", "False": "false", "None": "null"}.get(value.strip(), value))
    except ValueError:
        return value


@formats.register("xml_function")
class XmlFunction(AnswerFormat):
    syntaxes = (CallSyntax("<tool_call>", "</tool_call>", _read, json=False),)

    @staticmethod
    def matches(template: str) -> bool:
        needed = ("<tool_call>", "<function=", "<parameter=")
        return all(mark in template for mark in needed) and ":tool_call>" not in template
