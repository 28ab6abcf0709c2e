"""A chat session to its file and back: what of a session is kept, and what must be given again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pellucid import chat_file
from pellucid.chat_session import ChatSession
from pellucid.errors import UsageError
from pellucid.text.tool_schema import Tool, tool_schemas

if TYPE_CHECKING:
    from pellucid.llm import LLM


def save(chat: ChatSession, path: str | os.PathLike[str]) -> None:
    """ChatFileError: it cannot be written."""
    number = {id(turn): index for index, turn in enumerate(chat._turns)}
    given = {} if chat.params is None else chat.params.non_defaults()
    chat_file.write(
        path,
        {
            "model": chat_file.model_identity(chat._llm),
            "system": chat.system,
            "tools": chat.tools,
            "template_variables": chat._prompt.variables,
            "now": chat._prompt.now.isoformat(),
            "params": _plain({**given, **chat.overrides}),
            "model_defaults": chat.model_defaults,
            "turns": [chat_file.turn_state(turn, number) for turn in chat._turns],
            "head": None if chat._head is None else number[id(chat._head)],
            "pinned": [number[id(turn)] for turn in chat._pinned],
        },
    )


def restore(llm: LLM, path: str | os.PathLike[str], tools: Sequence[Tool] | None) -> ChatSession:
    """Arguments and errors: those of `LLM.restore_chat`."""
    file = chat_file.ChatFile(path)
    file.check_model(llm)
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
            **_from_plain(file.get(data, "params", dict)),
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


def _from_plain(params: Mapping[str, Any]) -> dict[str, Any]:
    pairs = params.get("logit_bias")
    if isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return {**params, "logit_bias": {pair[0]: pair[1] for pair in pairs}}
    return dict(params)
