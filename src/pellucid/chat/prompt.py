"""From turns to the tokens that an answer goes on from: the chat template of one conversation, with its tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pellucid.chat.turn import ChatTurn
from pellucid.errors import TemplateError, UsageError
from pellucid.text.answers.base import format_of, formats, reasoning_of
from pellucid.text.answers.parser import AnswerParser
from pellucid.text.chat import render_parts
from pellucid.text.template_support import check_message_is_read, check_tools_are_read
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tool_schema import Tool, tool_schemas
from pellucid.text.transcript import Change, Transcript

TAIL = 200  # characters at the end of a prompt in which it may begin a reasoning


class ChatPrompt:
    """How one conversation is rendered. The template's clock stands at the start of the conversation, so that
    a day that goes by does not change what was said.

    TemplateError: no template, one that ignores the tools, or one whose calls pellucid cannot read.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: Sequence[Tool] | None,
        variables: Mapping[str, Any],
        now: datetime | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.variables = dict(variables)
        self.now = now or datetime.now()
        self.tools = tool_schemas(tools)
        self.functions: dict[str, Callable[..., Any]] = {
            schema["function"]["name"]: tool
            for schema, tool in zip(self.tools, tools or (), strict=True)
            if callable(tool)
        }
        source = tokenizer.chat_template or ""
        self.format = format_of(source)
        self.reasoning = reasoning_of(source)
        self._read_roles: set[str] = set()
        self.render([{"role": "user", "content": "Hello"}])  # no template, or a broken one: told now
        if self.tools:
            check_tools_are_read(tokenizer, self.tools, self.now, self.variables)
            if self.format == "plain":
                known = ", ".join(name for name in formats if name != "plain")
                raise TemplateError(
                    "this model's chat template takes tools, but writes calls in a form that pellucid does not read "
                    f"(it reads: {known}); leave tools out, or use another model"
                )

    def render(self, messages: Sequence[Mapping[str, Any]]) -> list[str | int]:
        return render_parts(
            self.tokenizer, messages, tools=self.tools or None, now=self.now, **self.variables
        )

    def next_prompt(
        self, system: str | None, head: ChatTurn | None, inputs: Sequence[Mapping[str, Any]]
    ) -> tuple[Transcript, Change]:
        """The tokens for the next answer after `head`, and what became of the tokens that are there.

        An answer stands in the prompt as its own text or taken apart into reasoning and calls, whichever form the
        template leaves as it was generated; where neither, the one of which most stays.
        """
        before: list[Mapping[str, Any]] = []
        before += [] if system is None else [{"role": "system", "content": system}]
        path = head.path() if head is not None else []
        for turn in path[:-1]:
            before += [*turn.inputs, _standing(turn)]
        there = head.tokens if head is not None else Transcript(self.tokenizer)
        if head is None:
            messages = [*before, *inputs]
            self._check_read(messages, len(before))
            return there.rendered(self.render(messages))
        return self._after(before, head, inputs, there)

    def _after(
        self,
        before: list[Mapping[str, Any]],
        head: ChatTurn,
        inputs: Sequence[Mapping[str, Any]],
        there: Transcript,
    ) -> tuple[Transcript, Change]:
        forms = head.forms() if head.form is None else {head.form: head.forms()[head.form]}
        best: tuple[Transcript, Change] | None = None
        refusal: TemplateError | None = None
        chosen = None
        for form, answer in forms.items():
            messages = [*before, *head.inputs, answer, *inputs]
            try:
                found = there.rendered(self.render(messages))
            except TemplateError as error:
                refusal = refusal or error
                continue
            if best is None or found[1].dropped < best[1].dropped:
                best, chosen = found, form
            if best[1].append_only:
                break
        if best is None:
            raise refusal or TemplateError("the chat template rendered nothing")
        messages = [*before, *head.inputs, forms[str(chosen)], *inputs]
        self._check_read(messages, len(messages) - len(inputs))
        head.form = chosen
        return best

    def _check_read(self, messages: Sequence[Mapping[str, Any]], start: int) -> None:
        """That the template shows the system message and the new ones to the model; once for each role."""
        for index, message in enumerate(messages):
            role = str(message["role"])
            if role not in self._read_roles and (index >= start or role == "system"):
                check_message_is_read(
                    self.tokenizer, messages, index, self.tools or None, self.now, self.variables
                )
                self._read_roles.add(role)

    def parser(self, prompt: Transcript, first_call: int) -> AnswerParser:
        """For the answer to this prompt."""
        return AnswerParser(
            self.format,
            tools=bool(self.tools),
            reasoning=self.reasoning,
            controls=frozenset(self.tokenizer.control_pieces),
            opened=self._opened(prompt),
            schemas={t["function"]["name"]: t["function"]["parameters"] for t in self.tools},
            first_id=first_call,
        )

    def _opened(self, prompt: Transcript) -> str | None:
        """The closing marker of the reasoning that the prompt itself begins; None: it begins none."""
        tail = ""
        for segment in reversed(prompt.segments):
            part = segment.part
            tail = (part if isinstance(part, str) else self.tokenizer.piece(part)) + tail
            if len(tail) >= TAIL:
                break
        tail = tail.rstrip()
        return next((end for begin, end in self.reasoning if tail.endswith(begin.rstrip())), None)


def check_text(what: str, text: Any) -> str:
    """UsageError: it is no text."""
    if not isinstance(text, str):
        raise UsageError(f"{what}: expected text (str), got {type(text).__name__}")
    return text


def _standing(turn: ChatTurn) -> dict[str, Any]:
    """The answer as it stands in the prompts after it."""
    forms = turn.forms()
    return forms[turn.form] if turn.form is not None else next(iter(forms.values()))
