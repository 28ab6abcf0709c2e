"""Hermes: <tool_call> {"name": ..., "arguments": {...}} </tool_call>, once for each call.

Hermes 2 and 3, Qwen2.5, Qwen3, QwQ, SmolLM3, Granite 4 and others.
"""

from __future__ import annotations

from pellucid.text.answers.base import AnswerFormat, Call, CallSyntax, Schemas, calls_of, formats, json_values


def _read(body: str, schemas: Schemas) -> list[Call]:
    return calls_of(json_values(body))


@formats.register("hermes")
class Hermes(AnswerFormat):
    syntaxes = (CallSyntax("<tool_call>", "</tool_call>", _read),)

    @staticmethod
    def matches(template: str) -> bool:
        others = ("<function=", "<arg_key>", ":tool_call>", "~ '<tool_call>'", "<|tool_call>", "<tool_calls>")
        return "<tool_call>" in template and not any(other in template for other in others)
