"""Does a chat template read what it is given? Told by rendering twice: what changes nothing was not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pellucid.errors import TemplateError
from pellucid.text.chat import render_parts
from pellucid.text.tokenizer import Tokenizer

_ASKED = ({"role": "user", "content": "Hello"},)
_PROBE = "a text that no message has"


def check_tools_are_read(
    tokenizer: Tokenizer, tools: Sequence[Mapping[str, Any]], now: datetime, variables: Mapping[str, Any]
) -> None:
    """TemplateError: this chat template shows no tools to the model."""
    without = render_parts(tokenizer, _ASKED, now=now, **variables)
    if render_parts(tokenizer, _ASKED, tools=tools, now=now, **variables) == without:
        raise TemplateError(
            "this model's chat template ignores tools, so the model would not see them; leave tools out, describe "
            "them in the system message, or use a model that was made for tools"
        )


def check_message_is_read(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    index: int,
    tools: Sequence[Mapping[str, Any]] | None,
    now: datetime,
    variables: Mapping[str, Any],
) -> None:
    """TemplateError: this chat template leaves out what messages[index] says."""
    message = messages[index]
    if not message.get("content"):
        return
    others = [*messages[:index], {**message, "content": _PROBE}, *messages[index + 1 :]]
    there = render_parts(tokenizer, messages, tools=tools, now=now, **variables)
    try:
        other = render_parts(tokenizer, others, tools=tools, now=now, **variables)
    except TemplateError:
        return  # it reads the content at least to refuse another
    if there == other:
        raise TemplateError(
            f"this model's chat template leaves out messages of role '{message['role']}', so the model would not see "
            "it; say it in a user message, or use another model"
        )
