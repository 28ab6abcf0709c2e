"""An answer taken apart while it comes: text, reasoning, tool calls. It never loses or invents a character.

Markers that are control tokens of the vocabulary count only as these tokens (`control`); the same characters spelled
in text stay text. Other markers are found in the text, across the borders of its pieces; what could still become one
is held back. A tool call is held back until it is complete. Time is linear in the answer, whatever it says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pellucid.text.answers.base import AnswerFormat, Call, CallSyntax, Schemas, formats
from pellucid.text.answers.spans import Answer, Span, ToolCall, joined

MAX_SPACE = 64  # white space before a marker that goes with it; of a longer run, the last characters
PORTION = 4096  # characters that are looked at together
_STRING_PARTS = r'\\.|["\n]'


@dataclass
class _Held:
    """A call in the making. `before`: white space and the opening marker; `in_string`: inside of a JSON string."""

    syntax: CallSyntax | None  # None: a bare call, from the first character to the last
    before: str
    body: list[str] = field(default_factory=list)
    in_string: bool = False


class AnswerParser:
    """One answer.

    template_format: the family's name; with tools False its markers of calls are ordinary text. reasoning: pairs
    of markers. controls: the spellings of the vocabulary's control tokens. opened: the closing marker of
    a reasoning that the prompt began. schemas: the parameters of each tool. first_id: the number of the first call.
    """

    def __init__(
        self,
        template_format: str = "plain",
        *,
        tools: bool = False,
        reasoning: Sequence[tuple[str, str]] = (),
        controls: frozenset[str] | set[str] = frozenset(),
        opened: str | None = None,
        schemas: Schemas | None = None,
        first_id: int = 1,
    ) -> None:
        self._format: type[AnswerFormat] = formats[template_format]
        self._controls = controls
        self._schemas: Schemas = schemas or {}
        self._next_id = first_id
        self._opening: dict[str, CallSyntax | str] = {}
        self._words: dict[str, str] = {}  # opening marker -> words after it that belong to it
        for opening, closing in reasoning:
            token = next((c for c in controls if opening.startswith(c)), opening)
            self._opening[token], self._words[token] = closing, opening[len(token) :]
        if tools:
            self._opening.update({syntax.opening: syntax for syntax in self._format.syntaxes})
        self._maybe_bare = tools and bool(self._format.beginnings) and opened is None
        self._closing: str | None = opened  # of the reasoning that is open
        self._held: _Held | None = None
        self._buffer = ""
        self._expected = ""  # words that may follow a marker and then belong to it
        self._after_marker = opened is not None  # line breaks that follow belong to the marker
        self._spans: list[Span] = []
        self._patterns: dict[tuple[str, ...], re.Pattern[str]] = {}

    # --- what comes -----------------------------------------------------------------------------------
    def push(self, text: str) -> list[Span]:
        """The spans that this text makes certain."""
        out: list[Span] = []
        for start in range(0, len(text), PORTION):
            self._buffer += text[start : start + PORTION]
            out += self._scan()
        return out

    def control(self, piece: str) -> list[Span]:
        """A control token came. One that is no marker of this family is kept as a marker without meaning."""
        out = self._scan()
        if self._held is not None:
            return out + self._control_in_call(piece)
        if self._closing is None and piece in self._opening:
            return out + self._open(piece, self._take_buffer())
        space = self._take_space(out)
        if piece == self._closing:
            self._closing, self._after_marker = None, True
        return out + self._emit(Span("marker", space + piece))

    def finish(self) -> list[Span]:
        """What is still held back, at the end of the answer."""
        out = self._scan()
        if self._held is not None:
            self._held.body.append(self._buffer)
            self._buffer = ""
            return out + self._close("")
        self._maybe_bare, self._expected = False, ""
        return out + self._emit(Span(self._kind, self._take_buffer()))

    @property
    def answer(self) -> Answer:
        """All spans so far."""
        return Answer(joined(self._spans))

    @property
    def in_reasoning(self) -> bool:
        """Whether a reasoning is open: at the end of an answer, that it was broken off there."""
        return self._closing is not None

    # --- the scan -------------------------------------------------------------------------------------
    @property
    def _kind(self) -> str:
        return "text" if self._closing is None else "reasoning"

    def _emit(self, span: Span) -> list[Span]:
        if not span.raw:
            return []
        self._spans.append(span)
        return [span]

    def _scan(self) -> list[Span]:
        out: list[Span] = []
        while self._buffer:
            before = self._state()
            out += self._scan_call() if self._held is not None else self._scan_text()
            if self._state() == before:
                break
        return out

    def _state(self) -> tuple[object, ...]:
        held = self._held
        return (
            len(self._buffer),
            self._closing,
            id(held),
            self._maybe_bare,
            self._after_marker,
            self._expected,
        )

    def _scan_text(self) -> list[Span]:
        if self._expected:
            return self._scan_expected()
        if self._after_marker:
            rest = self._buffer.lstrip("\n")
            breaks, self._buffer = self._buffer[: len(self._buffer) - len(rest)], rest
            self._after_marker = not rest
            return self._emit(Span("marker", breaks))
        if self._maybe_bare:
            return self._scan_beginning()
        markers = tuple(self._opening) if self._closing is None else (self._closing,)
        markers = tuple(marker for marker in markers if marker not in self._controls)
        found = self._pattern(markers).search(self._buffer) if markers else None
        if found is None:
            cut = self._certain(self._buffer, markers)
            text, self._buffer = self._buffer[:cut], self._buffer[cut:]
            return self._emit(Span(self._kind, text))
        before, marker = self._buffer[: found.start()], found[0]
        self._buffer = self._buffer[found.end() :]
        if self._closing is None:
            return self._open(marker, before)
        text, space = _split_space(before)
        out = self._emit(Span(self._kind, text))
        self._closing, self._after_marker = None, True
        return out + self._emit(Span("marker", space + marker))

    def _scan_expected(self) -> list[Span]:
        """Words that belong to the marker before them, if they come."""
        words = self._expected
        if len(self._buffer) < len(words) and words.startswith(self._buffer):
            return []
        self._expected = ""
        if not self._buffer.startswith(words):
            return []
        self._buffer = self._buffer[len(words) :]
        return self._emit(Span("marker", words))

    def _pattern(self, markers: tuple[str, ...], more: str = "") -> re.Pattern[str]:
        key = (more, *markers)
        if key not in self._patterns:
            words = [re.escape(marker) for marker in sorted(markers, key=len, reverse=True)]
            self._patterns[key] = re.compile("|".join([*words, *([more] if more else [])]), re.DOTALL)
        return self._patterns[key]

    def _certain(self, text: str, markers: tuple[str, ...]) -> int:
        """How much of `text`, which holds no whole marker, can belong to none any more."""
        cut = len(text)
        for size in range(min(len(text), max(map(len, markers), default=1) - 1), 0, -1):
            if any(marker.startswith(text[-size:]) for marker in markers):
                cut -= size
                break
        return len(_split_space(text[:cut])[0]) if self._opening or self._closing else cut

    def _scan_beginning(self) -> list[Span]:
        """Could the whole answer be a call? Told by its first characters, white space aside."""
        squeezed = "".join(self._buffer[:256].split())
        longest = any(begin.startswith(squeezed) for begin in self._format.beginnings)
        if longest and len(self._buffer) <= 256:
            return []
        self._maybe_bare = False
        if any(squeezed.startswith(begin) for begin in self._format.beginnings):
            self._held = _Held(None, "")
        return []

    # --- calls and reasoning --------------------------------------------------------------------------
    def _open(self, marker: str, before: str) -> list[Span]:
        """A marker opens something; `before` is the text that was held back in front of it."""
        text, space = _split_space(before)
        out = self._emit(Span("text", text))
        opened = self._opening[marker]
        self._maybe_bare = False
        if isinstance(opened, str):
            self._closing, self._after_marker, self._expected = opened, True, self._words[marker]
            return out + self._emit(Span("marker", space + marker))
        self._held = _Held(opened, space + marker)
        return out

    def _take_buffer(self) -> str:
        text, self._buffer = self._buffer, ""
        return text

    def _take_space(self, out: list[Span]) -> str:
        """Everything that is held back, as text, but for the white space at its end, which is returned."""
        text, space = _split_space(self._take_buffer())
        self._maybe_bare, self._expected = False, ""
        out += self._emit(Span(self._kind, text))
        return space

    def _markers_in_call(self, held: _Held) -> tuple[str, ...]:
        """What ends a call: its closing marker, or, where it has none, the next opening one."""
        return () if held.syntax is None else (held.syntax.closing or held.syntax.opening,)

    def _scan_call(self) -> list[Span]:
        held = self._held
        if held is None:
            return []
        markers = tuple(m for m in self._markers_in_call(held) if m not in self._controls)
        strings = held.syntax is not None and held.syntax.json
        pattern = self._pattern(markers, _STRING_PARTS) if strings else self._pattern(markers)
        at, text = 0, self._buffer
        while (markers or strings) and (found := pattern.search(text, at)) is not None:
            if found[0] in markers and not held.in_string:
                return self._end_of_call(held, found.start(), found[0])
            at = found.end()
            if found[0] == '"':
                held.in_string = not held.in_string
            elif found[0] == "\n":
                held.in_string = False  # no JSON string goes over a line
            elif not held.in_string or found[0] in markers:
                at = found.start() + 1
        cut = max(at, self._undecided(text, markers, strings))
        held.body.append(text[:cut])
        self._buffer = text[cut:]
        return []

    @staticmethod
    def _undecided(text: str, markers: tuple[str, ...], strings: bool) -> int:
        """Where what the next piece could still change begins: part of a marker, or a lone backslash."""
        longest = max(map(len, markers), default=1) - 1
        for size in range(min(len(text), longest), 0, -1):
            if any(marker.startswith(text[-size:]) for marker in markers):
                return len(text) - size
        return len(text) - 1 if strings and text.endswith("\\") else len(text)

    def _end_of_call(self, held: _Held, start: int, marker: str) -> list[Span]:
        held.body.append(self._buffer[:start])
        closes = held.syntax is not None and bool(held.syntax.closing)
        self._buffer = self._buffer[start + (len(marker) if closes else 0) :]
        return self._close(marker if closes else "")

    def _control_in_call(self, piece: str) -> list[Span]:
        held = self._held
        if held is None:
            return []
        held.body.append(self._take_buffer())
        if piece in self._markers_in_call(held):
            closes = held.syntax is not None and bool(held.syntax.closing)
            out = self._close(piece if closes else "")
            return out if closes else out + self._open(piece, "")
        held.body.append(piece)
        return []

    def _close(self, marker: str) -> list[Span]:
        """The call is complete: what does it say?"""
        held, self._held = self._held, None
        if held is None:
            return []
        body = "".join(held.body)
        raw = held.before + body + marker
        try:
            read = self._format.read_bare if held.syntax is None else held.syntax.read
            calls = tuple(map(self._numbered, read(body, self._schemas)))
        except ValueError:
            return self._emit(Span("text", raw, malformed=True))
        self._after_marker = True
        return self._emit(Span("calls", raw, calls))

    def _numbered(self, call: Call) -> ToolCall:
        name, arguments, own_id = call
        number, self._next_id = self._next_id, self._next_id + 1
        return ToolCall(name, arguments, own_id or f"call{number:05d}")


def _split_space(text: str) -> tuple[str, str]:
    """(text, the white space at its end, at most MAX_SPACE characters of it)."""
    size = min(len(text) - len(text.rstrip()), MAX_SPACE)
    return (text[:-size], text[-size:]) if size else (text, "")
