"""DeepSeek: calls between their own markers. R1 and V3 write "function", the name and a fenced JSON block; V3.1
the name and bare JSON."""

from __future__ import annotations

import re

from pellucid.text.answers.base import (
    AnswerFormat,
    Call,
    CallSyntax,
    Schemas,
    arguments_of,
    formats,
    read_json,
)

_BEGIN, _SEP, _END = (
    f"<\uff5ctool\u2581{word}\uff5c>" for word in ("call\u2581begin", "sep", "call\u2581end")
)
_ALL = ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>")
_FENCE = re.compile(r"\s*(?P<name>[^\n`]+)\n```json\n(?P<json>.*)\n```\s*", re.DOTALL)


def _read(body: str, schemas: Schemas) -> list[Call]:
    calls: list[Call] = []
    first, *rest = body.split(_BEGIN)
    if first.strip() or not rest:
        raise ValueError("expected a call")
    for part in rest:
        inner, found, after = part.partition(_END)
        head, separated, tail = inner.partition(_SEP)
        if not found or not separated or after.strip():
            raise ValueError("expected a call between its markers")
        fenced = _FENCE.fullmatch(tail) if head.strip() == "function" else None
        name, arguments = (fenced["name"], fenced["json"]) if fenced else (head, tail)
        if not name.strip():
            raise ValueError("expected a name")
        calls.append((name.strip(), arguments_of(read_json(arguments)), None))
    return calls


@formats.register("deepseek")
class DeepSeek(AnswerFormat):
    syntaxes = (CallSyntax(_ALL[0], _ALL[1], _read),)

    @staticmethod
    def matches(template: str) -> bool:
        return _ALL[0] in template
