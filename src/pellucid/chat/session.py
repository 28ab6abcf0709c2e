"""A conversation with a model, kept as tokens: every turn costs its new tokens, every step back is exact."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pellucid.chat.answer import ChatAnswer
from pellucid.chat.prompt import ChatPrompt, check_text
from pellucid.chat.turn import ChatTurn
from pellucid.errors import UsageError
from pellucid.prompts import check_template_variables

if TYPE_CHECKING:
    from datetime import datetime

    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.text.tool_schema import Tool


@dataclass(frozen=True, slots=True)
class Branch:
    """One end of the tree of a conversation. `turn` None: the start. current: the conversation is here."""

    index: int
    turn: ChatTurn | None
    num_turns: int
    current: bool


class ChatSession:
    """One conversation; made by `llm.chat_session`.

        chat = llm.chat_session(system="You answer in one sentence.")
        for chunk in chat.say("What is a river?"):
            print(chunk.text, end="", flush=True)
        chat.undo()

    The history is kept as tokens, generated ones as they were generated. For each turn the chat template renders the
    whole conversation; where that begins with what is there, only the rest is new. Where it does not (a template that
    drops earlier reasoning, or trims answers), the tokens from the first difference on are replaced and computed
    anew; `turn.change` says so. Turns form a tree: nothing that was said is lost by `undo`, `edit` or `regenerate`.
    One session is for one thread at a time.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        system: str | None = None,
        tools: Sequence[Tool] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        params: SamplingParams | None = None,
        model_defaults: bool = False,
        now: datetime | None = None,
        **overrides: Any,
    ) -> None:
        """Arguments and errors: those of `LLM.chat_session`."""
        variables = check_template_variables(template_variables)
        self._llm = llm
        self._prompt = ChatPrompt(llm.tokenizer, tools, variables, now)
        self._system = None if system is None else check_text("system", system)
        self.params = params
        self.overrides = overrides
        self.model_defaults = model_defaults
        self._turns: list[ChatTurn] = []  # of all branches, in order of their making
        self._head: ChatTurn | None = None
        self._pinned: list[ChatTurn] = []
        self._check_params(overrides)

    # --- talking --------------------------------------------------------------------------------------
    def say(self, text: str, **overrides: Any) -> ChatAnswer:
        """The answer to a message, as a stream; the conversation goes on with both.

        overrides: sampling parameters of this answer only. Errors: UsageError (the last answer still runs, or
        waits for the results of tools), TemplateError, ContextOverflowError; the chat is then as it was.
        """
        message = {"role": "user", "content": check_text("say", text)}
        self._need_idle()
        self._need_no_calls(self._head)
        return self._ask(self._head, (message,), overrides)

    def tool_results(self, results: Sequence[Any], **overrides: Any) -> ChatAnswer:
        """The answer to the results of the tools that the last answer called, one for each call, in their order.

        A result that is no text is given to the model as JSON. UsageError: no calls, or another number of them.
        """
        self._need_idle()
        calls = self._head.answer.tool_calls if self._head is not None else ()
        if (
            isinstance(results, str | bytes)
            or not isinstance(results, Sequence)
            or len(results) != len(calls)
        ):
            count = len(results) if isinstance(results, list | tuple) else "none"
            raise UsageError(
                f"tool_results: the last answer has {len(calls)} calls, so a list of {len(calls)} results is "
                f"expected; got {count}"
            )
        if not calls:
            raise UsageError("tool_results: the last answer called no tool; use say")
        inputs = tuple(
            {"role": "tool", "name": call.name, "tool_call_id": call.id, "content": _as_text(result)}
            for call, result in zip(calls, results, strict=True)
        )
        return self._ask(self._head, inputs, overrides)

    def run_tools(self) -> list[Any]:
        """What the functions that were given as tools return for the last answer's calls: for `tool_results`.

        Nothing calls them but this. UsageError: a call of a tool that is no function here. An exception of a function
        passes through.
        """
        calls = self._head.answer.tool_calls if self._head is not None else ()
        unknown = [call.name for call in calls if call.name not in self._prompt.functions]
        if unknown:
            known = ", ".join(sorted(self._prompt.functions)) or "none"
            raise UsageError(f"the model calls '{unknown[0]}', which is no function here; there are: {known}")
        return [self._prompt.functions[call.name](**call.arguments) for call in calls]

    def regenerate(self, *, seed: int | None = None, **overrides: Any) -> ChatAnswer:
        """Another answer to the last message, on a branch of its own. seed None: a new one is drawn where chance
        decides; a greedy answer comes out the same."""
        turn = self._need_turn(-1)
        return self._ask(turn.parent, turn.inputs, {**overrides, "seed": seed})

    def edit(self, turn: int, text: str, **overrides: Any) -> ChatAnswer:
        """Turn `turn` (from 0; negative from the end) with another message, and a new answer to it; on a branch of
        its own, which ends there."""
        old = self._need_turn(turn)
        message = {"role": "user", "content": check_text("edit", text)}
        return self._ask(old.parent, (message,), overrides)

    def edit_answer(self, turn: int, text: str) -> ChatTurn:
        """Turn `turn` with this text as its answer, on a branch of its own, which ends there."""
        old = self._need_turn(turn)
        self._need_idle()
        new = ChatTurn(old.inputs, old.parent, old.prompt, old.change, finish_reason="edited")
        parser = self._prompt.parser(old.prompt, self._next_call(old.parent))
        parser.push(check_text("edit_answer", text))
        parser.finish()
        new.answer = parser.answer
        new.transcript = old.prompt.written(text)
        new.token_ids = new.transcript.ids[len(old.prompt) :]
        self._keep(new)
        return new

    # --- going back and forth -------------------------------------------------------------------------
    def undo(self, n: int = 1) -> None:
        """Back before the last n turns; they stay as a branch. UsageError: there are fewer."""
        self._need_idle()
        if not len(self):
            raise UsageError("undo: there is no turn to take back")
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(self.turns):
            raise UsageError(f"undo: expected 1 to {len(self.turns)} turns, got {n!r}")
        self._head = self.turns[-n].parent

    def fork(self) -> ChatSession:
        """Another session that begins with this one's turns. Both go on alone; what is computed is shared."""
        self._need_idle()
        other = ChatSession.__new__(ChatSession)
        other.__dict__.update(self.__dict__)
        other.overrides, other._turns = dict(self.overrides), list(self._turns)
        other._pinned = list(self._pinned)
        return other

    def pin(self) -> None:
        """Keep this place as a branch, also when the conversation goes on from it."""
        self._need_idle()
        if self._head is not None and self._head not in self._pinned:
            self._pinned.append(self._head)

    @property
    def branches(self) -> list[Branch]:
        """Every end of the tree and every pinned place, in order of their making, and where the conversation is."""
        parents = {id(turn.parent) for turn in self._turns}
        ends: list[ChatTurn | None] = [
            turn
            for turn in self._turns
            if id(turn) not in parents or turn is self._head or turn in self._pinned
        ]
        if self._head is None:
            ends.insert(0, None)
        return [
            Branch(index, turn, 0 if turn is None else len(turn.path()), turn is self._head)
            for index, turn in enumerate(ends)
        ]

    def switch(self, branch: int) -> None:
        """Go on from `branches[branch]`. UsageError: there is none."""
        self._need_idle()
        branches = self.branches
        if isinstance(branch, bool) or not isinstance(branch, int) or not 0 <= branch < len(branches):
            raise UsageError(f"switch: expected a branch from 0 to {len(branches) - 1}, got {branch!r}")
        self._head = branches[branch].turn

    def save(self, path: str | os.PathLike[str]) -> None:
        """All branches, with the keys and values that the prefix cache has of them, in a file of the format
        docs/chat-file.md. ChatFileError: it cannot be written; what was there is unchanged."""
        from pellucid.chat.save import save

        self._need_idle()
        save(self, path)

    # --- what is there --------------------------------------------------------------------------------
    @property
    def turns(self) -> list[ChatTurn]:
        """From the start to here."""
        return [] if self._head is None else self._head.path()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as messages, ready for `llm.chat` or another engine."""
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        said = [dict(message) for turn in self.turns for message in (*turn.inputs, turn.message)]
        return [*system, *said]

    @property
    def tokens(self) -> list[int]:
        """The tokens of the conversation so far."""
        return [] if self._head is None else list(self._head.tokens.ids)

    @property
    def system(self) -> str | None:
        """The system message. Another one counts from the next turn on, which then computes the conversation anew."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        self._system = None if text is None else check_text("system", text)

    def set_params(self, **overrides: Any) -> None:
        """The sampling parameters of the answers from now on, in place of `overrides`. UsageError: as of `generate`."""
        self._check_params(overrides)
        self.overrides = overrides

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The schemas of the tools."""
        return list(self._prompt.tools)

    @property
    def answer_format(self) -> str:
        """The family of formats in which this model's tool calls are read; "plain": none."""
        return self._prompt.format

    def __len__(self) -> int:
        return len(self.turns)

    def __repr__(self) -> str:
        return f"ChatSession({len(self)} turns, {len(self.tokens)} tokens, {len(self.branches)} branches)"

    # --- one turn -------------------------------------------------------------------------------------
    def _ask(
        self, parent: ChatTurn | None, inputs: tuple[Mapping[str, Any], ...], overrides: Mapping[str, Any]
    ) -> ChatAnswer:
        self._need_idle()
        merged = {**self.overrides, **overrides}
        self._check_params(merged)
        prompt, change = self._prompt.next_prompt(self._system, parent, inputs)
        stream = self._llm.stream(prompt.ids, self.params, model_defaults=self.model_defaults, **merged)
        turn, head = ChatTurn(inputs, parent, prompt, change), self._head
        parser = self._prompt.parser(prompt, self._next_call(parent))

        def forget(failed: ChatTurn) -> None:
            self._turns.remove(failed)
            self._head = head

        answer = ChatAnswer(stream, turn, parser, self._llm.tokenizer, forget)
        self._keep(turn)
        return answer

    def _keep(self, turn: ChatTurn) -> None:
        self._turns.append(turn)
        self._head = turn

    def _check_params(self, overrides: Mapping[str, Any]) -> None:
        settings = self._llm.effective_settings(self.params, model_defaults=self.model_defaults, **overrides)
        if settings["n"].value != 1:
            raise UsageError("n: a chat has one answer to each message; leave it out, or fork the chat")

    def _next_call(self, parent: ChatTurn | None) -> int:
        path = parent.path() if parent is not None else []
        return 1 + sum(len(turn.answer.tool_calls) for turn in path)

    def _need_idle(self) -> None:
        if self._head is not None and self._head.finish_reason is None:
            raise UsageError("the last answer still runs; read it to its end, or close it")

    @staticmethod
    def _need_no_calls(head: ChatTurn | None) -> None:
        if head is not None and head.answer.tool_calls:
            raise UsageError(
                f"the last answer calls {len(head.answer.tool_calls)} tools; give their results with tool_results, or "
                "undo the turn"
            )

    def _need_turn(self, index: int) -> ChatTurn:
        turns = self.turns
        if isinstance(index, bool) or not isinstance(index, int) or not -len(turns) <= index < len(turns):
            raise UsageError(f"there are {len(turns)} turns; got turn {index!r}")
        return turns[index]


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"tool_results: expected text or plain data for JSON: {error}") from None
