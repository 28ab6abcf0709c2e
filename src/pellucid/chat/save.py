"""A chat session to its file and back: what of a session is kept, and what must be given again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pellucid.chat import file as chat_file
from pellucid.chat.session import ChatSession
from pellucid.chat.turn import ChatTurn
from pellucid.errors import ChatFileError, SessionFileError, UsageError
from pellucid.held import session_save
from pellucid.held.branches import Branch, parting
from pellucid.held.generation import Generation
from pellucid.text.tool_schema import Tool, tool_schemas

if TYPE_CHECKING:
    from pellucid.llm import LLM


def save(chat: ChatSession, path: str | os.PathLike[str]) -> None:
    """ChatFileError: it cannot be written."""
    number = {id(turn): index for index, turn in enumerate(chat._turns)}
    given = {} if chat.params is None else chat.params.said()
    state = {
        "format": chat_file.FORMAT,
        "version": chat_file.VERSION,
        "chat_template_sha256": chat_file.template_digest(chat._llm.tokenizer),
        "system": chat.system,
        "tools": chat.tools,
        "template_variables": chat._prompt.variables,
        "now": chat._prompt.now.isoformat(),
        "params": _plain({**given, **chat.overrides}),
        "model_defaults": chat.model_defaults,
        "turns": [chat_file.turn_state(turn, number) for turn in chat._turns],
        "head": None if chat._head is None else number[id(chat._head)],
        "pinned": [number[id(turn)] for turn in chat._pinned],
    }
    branches = _held_branches(chat)
    try:
        with _as_chat_errors():
            session_save.write(chat._llm, path, branches, branches[-1] if branches else None, state)
    finally:
        for branch in branches:
            branch.close()


def _held_branches(chat: ChatSession) -> list[Generation]:
    """A generation for each end of the tree of tokens, with what the prefix cache has of it; nothing is computed. The
    conversation's own is the last: where a restore lacks room for all, the last put back stays."""
    llm, made = chat._llm, list[Generation]()
    ends = _ends(chat._turns)
    ends.sort(key=lambda turn: chat._head is not None and chat._head in turn.path())  # stable
    for turn in ends:
        # A sequence that has slid, or has filled the context, is longer than what a new one can hold.
        branch = llm.begin(turn.tokens.ids[: llm.context_length - 1])
        llm._open_driver().take_cached(branch._held)
        if made:
            branch.branch = Branch(branch, made[0].branch, parting(branch, made[0]))
        made.append(branch)
    return made


def _ends(turns: Sequence[ChatTurn]) -> list[ChatTurn]:
    """The turns whose tokens are not the beginning of a later turn's: a template may have replaced some."""
    continued = set()
    for turn in turns:
        if turn.parent is not None:
            before = turn.parent.tokens.ids
            if turn.prompt.ids[: len(before)] == before:
                continued.add(id(turn.parent))
    return [turn for turn in turns if id(turn) not in continued]


def restore(llm: LLM, path: str | os.PathLike[str], tools: Sequence[Tool] | None, *, kv: bool) -> ChatSession:
    """Arguments and errors: those of `LLM.restore_chat`."""
    with _as_chat_errors():
        session = session_save.opened(llm, path, kv=kv)
        chat = _chat(llm, chat_file.ChatFile(session.path, session.manifest.get("extra")), tools)
        if kv:
            for branch in session_save.branches_in(session, llm, kv=True):
                branch.close()  # its blocks go to the prefix cache, where the next turn finds them
    return chat


@contextmanager
def _as_chat_errors() -> Iterator[None]:
    """The container's errors, by the name that a chat's have."""
    try:
        yield
    except SessionFileError as error:
        raise ChatFileError(str(error)) from None


def _chat(llm: LLM, file: chat_file.ChatFile, tools: Sequence[Tool] | None) -> ChatSession:
    file.check_template(llm.tokenizer)
    data = file.data
    saved = file.get(data, "tools", list)
    if tools is not None and tool_schemas(tools) != saved:
        raise UsageError("tools: expected those of the saved conversation; begin another one for others")
    try:
        chat = ChatSession(
            llm,
            system=file.get(data, "system", (str, type(None))),
            tools=tools if tools is not None else saved,
            template_variables=file.get(data, "template_variables", dict),
            model_defaults=file.get(data, "model_defaults", bool),
            now=file.now(),
            **file.get(data, "params", dict),
        )
    except (UsageError, TypeError) as error:
        file.fail(f"is damaged: {error}")
    chat._turns = file.turns(llm.tokenizer)
    chat._head = file.turn_at("head", file.get(data, "head", (int, type(None))), chat._turns)
    pinned = [file.turn_at("pinned", index, chat._turns) for index in file.get(data, "pinned", list)]
    chat._pinned = [turn for turn in pinned if turn is not None]
    return chat


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling parameters as JSON has them. Keys of JSON objects are text: pairs stand for mappings."""
    return {
        name: [list(pair) for pair in value.items()]
        if isinstance(value, Mapping)
        else sorted(value)
        if isinstance(value, set | frozenset)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in params.items()
    }
