"""What an answer consists of: visible text, reasoning, tool calls, and the markers between them. Plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called. `id`: nine letters and digits, unique in its conversation."""

    name: str
    arguments: Mapping[str, Any]
    id: str

    def to_message(self) -> dict[str, Any]:
        """As chat templates read it, inside of an assistant message's `tool_calls`."""
        function = {"name": self.name, "arguments": dict(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of an answer. The `raw` of all spans, one after the other, is the whole answer.

    kind: "text" (shown), "reasoning", "calls" (`calls` holds what it says), or "marker" (a tag, and white space
    that belongs to it). malformed: text that began as a tool call and is none.
    """

    kind: str
    raw: str
    calls: tuple[ToolCall, ...] = ()
    malformed: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer taken apart. Nothing of it is lost: `raw` is what the model wrote, control tokens spelled.

    text: what is shown. reasoning: what was thought before; None: the answer has no such span. malformed: the
    texts that began as tool calls and are none; they are part of `text`.
    """

    spans: tuple[Span, ...]

    @property
    def raw(self) -> str:
        return "".join(span.raw for span in self.spans)

    @property
    def text(self) -> str:
        return "".join(span.raw for span in self.spans if span.kind == "text")

    @property
    def reasoning(self) -> str | None:
        found = [span.raw for span in self.spans if span.kind == "reasoning"]
        return "".join(found) if found else None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(call for span in self.spans for call in span.calls)

    @property
    def malformed(self) -> tuple[str, ...]:
        return tuple(span.raw for span in self.spans if span.malformed)


def joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same spans, with neighbours of one kind as one."""
    out: list[Span] = []
    for span in spans:
        same = bool(out) and out[-1].kind == span.kind and not (out[-1].malformed or span.malformed)
        if same and span.kind != "calls":
            out[-1] = replace(out[-1], raw=out[-1].raw + span.raw)
        elif span.raw or span.calls:
            out.append(span)
    return tuple(out)
