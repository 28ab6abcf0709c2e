"""The tree of turns as plain data and back; docs/chat-file.md describes it.

It is the `extra` of a session file, whose branches hold the tokens, keys and values (`save.py`). It is read with
suspicion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pellucid.chat.turn import STRUCTURED, VERBATIM, ChatTurn
from pellucid.errors import ChatFileError, PellucidError
from pellucid.text.answers.spans import Answer, Span, ToolCall
from pellucid.text.messages import check_messages, copied
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.transcript import Change, Segment, Transcript

T = TypeVar("T")
FORMAT, VERSION = "pellucid-chat", 1
KINDS = ("text", "reasoning", "calls", "marker")
REASONS = ("eos", "stop", "length", "context", "abort", "edited")


def template_digest(tokenizer: Tokenizer) -> str:
    """Another template would render the conversation otherwise."""
    return sha256((tokenizer.chat_template or "").encode()).hexdigest()


# --- writing ----------------------------------------------------------------------------------------------
def turn_state(turn: ChatTurn, number: Mapping[int, int]) -> dict[str, Any]:
    """A turn as plain data. number: the index of each turn in the file, by id()."""
    parent = turn.parent
    before = parent.tokens.segments if parent is not None else ()
    shared = 0
    for a, b in zip(before, turn.prompt.segments, strict=False):
        if a != b:
            break
        shared += 1
    after = turn.tokens.segments[len(turn.prompt.segments) :]
    change = turn.change
    return {
        "parent": None if parent is None else number[id(parent)],
        "inputs": [dict(message) for message in turn.inputs],
        "shared": shared,
        "prompt": [_segment_state(segment) for segment in turn.prompt.segments[shared:]],
        "answer": [_segment_state(segment) for segment in after],
        "spans": [_span_state(span) for span in turn.answer.spans],
        "change": [change.kept, change.dropped, change.added, change.difference],
        "finish_reason": turn.finish_reason,
        "verbatim": turn.verbatim,
        "form": turn.form,
    }


def _segment_state(segment: Segment) -> list[Any]:
    return [segment.part, list(segment.ids), segment.added]


def _span_state(span: Span) -> list[Any]:
    return [span.kind, span.raw, [[c.name, dict(c.arguments), c.id] for c in span.calls], span.malformed]


# --- reading ----------------------------------------------------------------------------------------------
class ChatFile:
    """What the `extra` of a session file says of a conversation, checked. ChatFileError: damaged, no conversation, or
    of another template; in one line."""

    def __init__(self, path: Path, data: Any) -> None:
        self.path, self.data = path, data
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            self.fail("is the file of a generation, not of a conversation; use restore")
        if data.get("version") != VERSION:
            version = str(data.get("version"))[:20]
            self.fail(f"is of version {version!a}; this pellucid reads version {VERSION}")

    def fail(self, problem: str) -> NoReturn:
        raise ChatFileError(f"{self.path}: {problem}")

    def get(self, data: Any, key: str, kind: type[T] | tuple[type[T], ...]) -> T:
        value = data.get(key, self) if isinstance(data, dict) else self
        wanted = kind if isinstance(kind, tuple) else (kind,)
        if value is self or not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            names = " or ".join("null" if k is type(None) else k.__name__ for k in wanted)
            self.fail(f"is damaged: expected '{key}' to be {names}")
        return value

    def check_template(self, tokenizer: Tokenizer) -> None:
        if self.get(self.data, "chat_template_sha256", str) != template_digest(tokenizer):
            self.fail("was saved with another chat template; load that model")

    def now(self) -> datetime:
        try:
            return datetime.fromisoformat(self.get(self.data, "now", str))
        except ValueError:
            self.fail("is damaged: expected 'now' to be a time")

    def turns(self, tokenizer: Tokenizer) -> list[ChatTurn]:
        """All turns, parents first."""
        turns: list[ChatTurn] = []
        for state in self.get(self.data, "turns", list):
            try:
                turns.append(self._turn(state, turns, tokenizer))
            except ChatFileError:
                raise
            except PellucidError as error:
                self.fail(f"is damaged: turn {len(turns)}: {error}")
        return turns

    def turn_at(self, key: str, index: Any, turns: Sequence[ChatTurn]) -> ChatTurn | None:
        """The turn with this number; None for null."""
        if index is None:
            return None
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(turns):
            self.fail(f"is damaged: '{key}' names turn {str(index)[:20]}, which is not there")
        return turns[index]

    def _turn(self, state: Any, turns: Sequence[ChatTurn], tokenizer: Tokenizer) -> ChatTurn:
        parent = self.turn_at("parent", self.get(state, "parent", (int, type(None))), turns)
        before = parent.tokens.segments if parent is not None else ()
        shared = self.get(state, "shared", int)
        if not 0 <= shared <= len(before):
            self.fail(f"is damaged: 'shared' is {shared}, of {len(before)}")
        prompt = [*before[:shared], *self._segments(state, "prompt", tokenizer)]
        answer = self._segments(state, "answer", tokenizer)
        kept, dropped, added, difference = self._list(state, "change", (int, int, int, str))
        reason, form = self.get(state, "finish_reason", str), self.get(state, "form", (str, type(None)))
        if reason not in REASONS or form not in (VERBATIM, STRUCTURED, None) or not prompt:
            self.fail("is damaged: a turn has an unknown 'finish_reason' or 'form', or no prompt")
        turn = ChatTurn(
            tuple(check_messages(self.get(state, "inputs", list))), parent, Transcript(tokenizer, prompt),
            Change(kept, dropped, added, difference), Answer(tuple(map(self._span, self.get(state, "spans", list)))),
            [token_id for segment in answer for token_id in segment.ids], Transcript(tokenizer, [*prompt, *answer]),
            reason, None, self.get(state, "verbatim", bool), form,
        )  # fmt: skip
        if form is not None and form not in turn.forms():
            self.fail(f"is damaged: an answer cannot stand as '{form}'")
        return turn

    def _list(self, state: Any, key: str, kinds: Sequence[type]) -> list[Any]:
        values = self.get(state, key, list) if isinstance(key, str) else state
        good = len(values) == len(kinds) and all(
            type(value) is kind for value, kind in zip(values, kinds, strict=True)
        )
        if not good:
            self.fail(f"is damaged: '{key}' is not what it should be")
        return values

    def _segments(self, state: Any, key: str, tokenizer: Tokenizer) -> list[Segment]:
        segments = []
        for item in self.get(state, key, list):
            if not isinstance(item, list) or len(item) != 3 or not isinstance(item[1], list):
                self.fail(f"is damaged: '{key}' is not what it should be")
            part, ids, added = item
            if (
                type(added) is not bool
                or not all(type(i) is int for i in ids)
                or type(part) not in (str, int)
            ):
                self.fail(f"is damaged: '{key}' is not what it should be")
            for token_id in ids:
                tokenizer.check_id(token_id)
            control = isinstance(part, int)
            same = (
                ids == [part]
                if control
                else tokenizer.join(ids).decode("utf-8", "replace").strip() == part.strip()
            )
            if not same and (control or tokenizer.decode(tokenizer.encode(part, add_bos=False)) == part):
                self.fail(f"is damaged: the tokens of {str(part)[:30]!r} spell something else")
            segments.append(Segment(part, tuple(ids), added))
        return segments

    def _span(self, item: Any) -> Span:
        kind, raw, calls, malformed = self._list({"spans": item}, "spans", (str, str, list, bool))
        if kind not in KINDS:
            self.fail(f"is damaged: a span of kind {kind[:20]!r}")
        made = []
        for call in calls:
            name, arguments, call_id = self._list({"calls": call}, "calls", (str, dict, str))
            made.append(ToolCall(name, copied(arguments), call_id))
        return Span(kind, raw, tuple(made), malformed)
