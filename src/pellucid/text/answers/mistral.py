"""Mistral: [TOOL_CALLS] and a JSON array of calls (to Small 3.1), or NAME[ARGS]{...} once for each call (from
Small 3.2 on, there with [CALL_ID] and an id before [ARGS])."""

from __future__ import annotations

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


def _read(body: str, schemas: Schemas) -> list[Call]:
    if body.lstrip()[:1] in ("[", "{"):
        return calls_of(json_values(body))
    head, found, arguments = body.partition("[ARGS]")
    name, named, own_id = head.partition("[CALL_ID]")
    if not found or not name.strip():
        raise ValueError("expected NAME[ARGS]")
    return [(name.strip(), arguments_of(read_json(arguments)), own_id.strip() if named else None)]


@formats.register("mistral")
class Mistral(AnswerFormat):
    syntaxes = (CallSyntax("[TOOL_CALLS]", "", _read),)

    @staticmethod
    def matches(template: str) -> bool:
        return "[TOOL_CALLS]" in template
