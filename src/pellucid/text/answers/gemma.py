"""Gemma 4: <|tool_call>call:NAME{KEY:VALUE,...}<tool_call|>, strings between <|"|> marks.

Gemma 1 to 3 have no form of their own for tool calls: their templates take no tools.
"""

from __future__ import annotations

import re
from typing import Any

from pellucid.text.answers.base import AnswerFormat, Call, CallSyntax, Schemas, formats

_QUOTE = '<|"|>'
_NAME = re.compile(r"\s*call:([^{}\s]+)\s*\{")
_KEY = re.compile(r"([^:{}\[\],<]+):")
_PLAIN = re.compile(r"true|false|null|none|None|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None, "none": None, "None": None}
MAX_DEPTH = 64


class _Reader:
    """A value after the other, from the left."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def take(self, words: str) -> bool:
        found = self.text.startswith(words, self.at)
        self.at += len(words) if found else 0
        return found

    def need(self, words: str) -> None:
        if not self.take(words):
            raise ValueError(f"expected {words}")

    def string(self) -> str:
        end = self.text.find(_QUOTE, self.at)
        if end < 0:
            raise ValueError("a string without its end")
        value, self.at = self.text[self.at : end], end + len(_QUOTE)
        return value

    def value(self, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deep")
        if self.take(_QUOTE):
            return self.string()
        if self.take("{"):
            return self.members(depth)
        if self.take("["):
            items: list[Any] = []
            while not self.take("]"):
                if items:
                    self.need(",")
                items.append(self.value(depth + 1))
            return items
        found = _PLAIN.match(self.text, self.at)
        if found is None:
            raise ValueError("expected a value")
        self.at = found.end()
        word = found[0]
        return _WORDS[word] if word in _WORDS else float(word) if set(".eE") & set(word) else int(word)

    def members(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self.take("}"):
            if found:
                self.need(",")
            if self.take(_QUOTE):
                key = self.string()
                self.need(":")
            else:
                match = _KEY.match(self.text, self.at)
                if match is None:
                    raise ValueError("expected KEY:")
                key, self.at = match[1], match.end()
            found[key] = self.value(depth + 1)
        return found


def _read(body: str, schemas: Schemas) -> list[Call]:
    name = _NAME.match(body)
    if name is None:
        raise ValueError("expected call:NAME{")
    reader = _Reader(body)
    reader.at = name.end()
    arguments = reader.members(0)
    if body[reader.at :].strip():
        raise ValueError("expected the end of the call")
    return [(name[1], arguments, None)]


@formats.register("gemma")
class Gemma(AnswerFormat):
    syntaxes = (CallSyntax("<|tool_call>", "<tool_call|>", _read, json=False),)

    @staticmethod
    def matches(template: str) -> bool:
        return "<|tool_call>" in template
