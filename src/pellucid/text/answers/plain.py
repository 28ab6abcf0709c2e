"""No tool calls: a model whose chat template knows none."""

from __future__ import annotations

from pellucid.text.answers.base import AnswerFormat, formats


@formats.register("plain")
class Plain(AnswerFormat):
    @staticmethod
    def matches(template: str) -> bool:
        return False  # what is left when nobody else does
