"""Llama 3.1, 3.2, 3.3: {"name": ..., "parameters": {...}} as the whole answer, or after <|python_tag|>.

After <|python_tag|> a built-in tool is written as NAME.call(KEY=VALUE, ...), values as in Python. Several objects have
a semicolon between them. Llama 3.1's own format for custom tools, <function=NAME>{...}</function>, is read too.
"""

from __future__ import annotations

import ast
import json
import warnings
from typing import Any

from pellucid.text.answers.base import (
    AnswerFormat,
    Call,
    CallSyntax,
    Schemas,
    arguments_of,
    calls_of,
    formats,
    json_values,
    read_json,
)

MAX_EXPRESSION = 1 << 16  # characters of a call in Python's syntax


def _read_objects(body: str, schemas: Schemas) -> list[Call]:
    return calls_of(json_values(body, separators=";"))


def _read_tagged(body: str, schemas: Schemas) -> list[Call]:
    return _read_objects(body, schemas) if body.lstrip()[:1] in ("{", "[") else [_read_python(body.strip())]


def _read_python(text: str) -> Call:
    """NAME.call(KEY=VALUE, ...) with literal values. Parsed, never run."""
    if len(text) > MAX_EXPRESSION:
        raise ValueError("too long")
    try:
        with warnings.catch_warnings():  # of escapes that Python does not know
            warnings.simplefilter("ignore")
            call = ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("no expression") from error
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "call"):
        raise ValueError("expected NAME.call(...)")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError("expected KEY=VALUE")
    arguments: dict[str, Any] = {str(k.arg): _literal(k.value) for k in call.keywords}
    return ast.unparse(call.func.value), arguments, None


def _literal(node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
        json.dumps(value, allow_nan=False)
    except (TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("expected a literal of plain data") from error
    return value


def _read_function(body: str, schemas: Schemas) -> list[Call]:
    name, found, arguments = body.partition(">")
    if not found or not name.strip():
        raise ValueError("expected NAME>")
    return [(name.strip(), arguments_of(read_json(arguments or "{}")), None)]


@formats.register("llama3")
class Llama3(AnswerFormat):
    syntaxes = (
        CallSyntax("<|python_tag|>", "", _read_tagged),
        CallSyntax("<function=", "</function>", _read_function),
    )
    beginnings = ('{"name":', '{"type":"function"', '{"function":', '{"parameters":')

    @staticmethod
    def read_bare(body: str, schemas: Schemas) -> list[Call]:
        return _read_objects(body, schemas)

    @staticmethod
    def matches(template: str) -> bool:
        return "<|start_header_id|>" in template and "ipython" in template and '"parameters": ' in template
