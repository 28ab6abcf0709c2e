"""Granite 3: <|tool_call|> and a JSON array of calls, to the end of the answer."""

from __future__ import annotations

from pellucid.text.answers.base import AnswerFormat, Call, CallSyntax, Schemas, calls_of, formats, json_values


def _read(body: str, schemas: Schemas) -> list[Call]:
    return calls_of(json_values(body))


@formats.register("granite")
class Granite(AnswerFormat):
    syntaxes = (CallSyntax("<|tool_call|>", "", _read),)

    @staticmethod
    def matches(template: str) -> bool:
        return "<|tool_call|>" in template
