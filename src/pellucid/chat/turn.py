"""One turn of a chat: what was said to the model, and what it answered. Turns form a tree by their parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.outputs import GenerationResult
from pellucid.text.answers.spans import Answer
from pellucid.text.transcript import Change, Transcript

VERBATIM, STRUCTURED = "verbatim", "structured"


@dataclass(eq=False, repr=False)
class ChatTurn:
    """A node of the tree of a conversation; it changes only while its answer is generated.

    inputs: the messages before the answer (one of the user, or results of tools). parent: the turn before, None at
    the start. prompt: the tokens that the answer goes on from. change: what rendering this prompt did to the
    tokens of the turn before: whether it only added to them, and else what was recomputed.

    answer: text, reasoning and tool calls. token_ids: what was generated, the end token too, as generated.
    finish_reason: as of a result; "abort" where the answer was interrupted, "edited" where a caller wrote it,
    None while it runs. result: counts, timings, settings, log-probabilities; None where nothing was generated here.
    """

    inputs: tuple[Mapping[str, Any], ...]
    parent: ChatTurn | None
    prompt: Transcript
    change: Change
    answer: Answer = field(default_factory=lambda: Answer(()))
    token_ids: list[int] = field(default_factory=list)
    transcript: Transcript | None = None  # prompt and answer, once the answer has ended
    finish_reason: str | None = None
    result: GenerationResult | None = None
    verbatim: bool = True  # whether the answer's own text can stand in a message (no markers but text in it)
    form: str | None = None  # how the answer stands in the prompts after it; None: there are none yet

    @property
    def text(self) -> str:
        """What the answer shows."""
        return self.answer.text

    @property
    def interrupted(self) -> bool:
        return self.finish_reason == "abort"

    @property
    def tokens(self) -> Transcript:
        return self.transcript if self.transcript is not None else self.prompt

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message: content, and reasoning_content and tool_calls where it has them."""
        answer = self.answer
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.reasoning is not None:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [call.to_message() for call in answer.tool_calls]
        return message

    def forms(self) -> dict[str, dict[str, Any]]:
        """The messages that can stand for the answer in a prompt, by the name of the form, the preferred first."""
        structured = self.message
        if not self.verbatim:
            return {STRUCTURED: structured}
        forms = {VERBATIM: {"role": "assistant", "content": self.answer.raw}}
        return forms if structured == forms[VERBATIM] else {**forms, STRUCTURED: structured}

    def path(self) -> list[ChatTurn]:
        """The turns from the start to this one."""
        turns: list[ChatTurn] = []
        at: ChatTurn | None = self
        while at is not None:
            turns.append(at)
            at = at.parent
        return turns[::-1]

    def __repr__(self) -> str:
        said = ", ".join(
            f"{message['role']}: {str(message.get('content'))[:40]!r}" for message in self.inputs
        )
        ended = self.finish_reason or "running"
        return f"ChatTurn({said}; {self.text[:40]!r}, {len(self.token_ids)} tokens, {ended})"
