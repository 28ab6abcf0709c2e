"""Chat messages to token ids, through the model's chat template.

What a message says never becomes a control token, whatever it spells. Control tokens in the template's own literal
text are marked before it runs (text/template.py); everything else it writes is encoded as plain text. A template that
puts a control token together ("<|" + role + "|>") is seen by that token in the text although nothing marked it; then
the messages are rendered a second time with every character disguised, which tells the template's words from theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from pellucid.errors import TemplateError
from pellucid.text.messages import check_messages, copied, mapped, texts_of
from pellucid.text.template import ChatTemplate
from pellucid.text.tokenizer import Tokenizer

# Where marks and disguises are taken from: the private-use planes, except what texts use of them.
PRIVATE = (range(0x100000, 0x10FFFE), range(0xF0000, 0xFFFFE))
RESERVED = ("messages", "tools", "add_generation_prompt")
# White space, quotes and backslashes stay as they are: templates trim by them, and JSON writes them longer.
DISGUISED = re.compile(r'[^\s"\\\x00-\x1F]')

_compile = lru_cache(maxsize=16)(ChatTemplate)


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> list[int]:
    """The ids of a conversation, ready to be continued; BOS is there once, if the model wants one.

    messages: dicts with role and content (text, or a list of text parts), and whatever else the template reads.
    variables: further names for the template. TemplateError: no template, a broken one, messages it refuses.
    """
    ids = _Rendering(tokenizer, messages, add_generation_prompt, tools, variables).ids()
    return tokenizer.with_bos(ids) if tokenizer.adds_bos else ids


def render_chat_text(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> str:
    """The text that the template makes, for display: it does not tell control tokens from text that spells them."""
    return _Rendering(tokenizer, messages, add_generation_prompt, tools, variables).text()


def render_parts(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    now: datetime | None = None,
    **variables: Any,
) -> list[str | int]:
    """The rendered conversation as texts and the ids of the template's control tokens, texts never adjacent.

    `tokenizer.encode_parts` of it, without parse_special, gives the ids of `render_chat` but for an added BOS.
    now: what the template's clock shows; default: the time.
    """
    return _Rendering(tokenizer, messages, add_generation_prompt, tools, variables, now).parts()


class _Rendering:
    """One conversation through one template."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
        now: datetime | None = None,
    ) -> None:
        if tokenizer.chat_template is None:
            raise TemplateError(
                f"{tokenizer.path}: this model has no chat template; use generate with a prompt, or a model that was "
                "made for chat (often named -instruct or -it)"
            )
        wrong = [name for name in variables if name in RESERVED]
        if wrong:
            raise TemplateError(f"template variable '{wrong[0]}' has a parameter of its own")
        self.tokenizer = tokenizer
        self.now = now
        self.template = _compile(tokenizer.chat_template)
        self.data: dict[str, Any] = {
            "messages": check_messages(messages),
            "tools": None if tools is None else [copied(tool) for tool in tools],
            **{name: copied(value) for name, value in variables.items()},
        }
        self.add_generation_prompt = add_generation_prompt
        self.controls = tokenizer.control_pieces
        self.private = self._private()
        named = [name for name in tokenizer.named_tokens.values() if name in self.controls]
        written = [
            piece for piece in self.controls if piece in self.template.literals and not piece.isalnum()
        ]
        self.marks = {piece: next(self.private) for piece in dict.fromkeys([*written, *named])}

    def _private(self) -> Iterator[str]:
        """Private-use characters that neither the template nor the caller uses."""
        used = {
            c for text in [*texts_of(self.data), self.template.literals] for c in text if ord(c) >= 0xF0000
        }
        used.update(c for piece in self.controls for c in piece if ord(c) >= 0xF0000)
        for block in PRIVATE:
            yield from (c for c in map(chr, block) if c not in used)
        raise TemplateError("the messages use every private-use character; remove those above U+F0000")

    def render(self, data: Mapping[str, Any]) -> str:
        """The text with marks for the template's control tokens."""
        named = {name: self.marks.get(piece, piece) for name, piece in self.tokenizer.named_tokens.items()}
        variables = {**named, **data, "add_generation_prompt": self.add_generation_prompt}
        return self.template.render(variables, self.marks, now=self.now)

    def text(self) -> str:
        return self._unmarked(self.render(self.data))

    def _unmarked(self, text: str) -> str:
        for piece, mark in self.marks.items():
            text = text.replace(mark, piece)
        return text

    def ids(self) -> list[int]:
        parts, ids = self._told_apart()
        return self.tokenizer.encode_parts(parts, parse_special=False) if ids is None else ids

    def parts(self) -> list[str | int]:
        return self._told_apart()[0]

    def _told_apart(self) -> tuple[list[str | int], list[int] | None]:
        """(the parts, their ids where they are known on the way)."""
        text = self.render(self.data)
        parts = self._parts(text)
        ids = self.tokenizer.encode_parts(parts, parse_special=True)
        controls = set(self.controls.values())
        if [i for i in ids if i in controls] != [part for part in parts if not isinstance(part, str)]:
            return self._attributed(text), None
        # Without an unknown token nothing was spelled, so there is nothing to tell apart.
        return parts, None if self.tokenizer.unknown_id in ids else ids

    def _parts(self, text: str, spelled: Iterable[tuple[int, int]] = ()) -> list[str | int]:
        """Text and control tokens: those marked, and those spelled at the ranges [start, stop)."""
        marks = {mark: self.controls[piece] for piece, mark in self.marks.items()}
        found = [(i, i + 1, marks[c]) for i, c in enumerate(text) if c in marks] if marks else []
        found += [(start, stop, self.controls[text[start:stop]]) for start, stop in spelled]
        parts: list[str | int] = []
        at = 0
        for start, stop, token_id in sorted(found):
            parts += [text[at:start], token_id] if start > at else [token_id]
            at = stop
        return [*parts, text[at:]] if at < len(text) else parts

    def _spelled(self, text: str) -> list[tuple[int, int]]:
        """Where the text spells control tokens that nothing marked: the longest first, then from the left."""
        pieces = sorted(
            (piece for piece in self.controls if piece in text), key=lambda piece: (-len(piece), piece)
        )
        taken: list[tuple[int, int]] = []
        for piece in pieces:
            for match in re.finditer(re.escape(piece), text):
                start, stop = match.span()
                if all(stop <= a or start >= b for a, b in taken):
                    taken.append((start, stop))
        return sorted(taken)

    def _attributed(self, text: str) -> list[str | int]:
        """The parts of a text that spells control tokens: by the template, or by a message?"""
        disguises: dict[str, str] = {}

        def disguise(words: str) -> str:
            for c in DISGUISED.findall(words):
                if c not in disguises:
                    disguises[c] = next(self.private)
            return DISGUISED.sub(lambda match: disguises[match[0]], words)

        other = self.render(mapped(self.data, disguise))
        spelled, certain = self._spelled(text), self._spelled(other)
        if not certain:
            return self._parts(text)  # the template puts none together: all are of the messages
        plain = other.translate({ord(disguised): c for c, disguised in disguises.items()})
        if plain == text:
            return self._parts(text, [span for span in spelled if text[slice(*span)] == other[slice(*span)]])
        same = [text[slice(*span)] for span in spelled] == [other[slice(*span)] for span in certain]
        innocent = not any(piece in words for words in texts_of(self.data) for piece in self.controls)
        if same and innocent:
            return self._parts(text, spelled)
        culprit = next((text[slice(*span)] for span in spelled), "")
        raise TemplateError(
            f"a message spells the control token {culprit!r}, and this chat template does not let it be told from the "
            "template's own; remove it from the message"
        )
