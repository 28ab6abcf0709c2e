"""Chat messages as they come from a caller: checked once, and their texts found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pellucid.errors import TemplateError

# Roles that templates build control tokens from ("<|" + role + "|>"). Others are text of the caller.
KNOWN_ROLES = frozenset(["system", "developer", "user", "assistant", "model", "tool", "function", "ipython"])
KNOWN_TYPES = frozenset(
    ["text", "function", "object", "string", "number", "integer", "boolean", "array", "null"]
)
ROLE = re.compile(r"[A-Za-z0-9_. -]{1,64}")
FREE_KEYS = ("arguments", "parameters", "properties")  # below these, keys are the caller's words as well


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as new dicts, contents as text or None.

    A content of parts [{"type": "text", "text": ...}] becomes their texts with a newline between them.
    TemplateError: says which message is wrong, and how.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise TemplateError(
            f"expected a list of messages (dicts with role and content), got {_kind(messages)}"
        )
    if not messages:
        raise TemplateError(
            'there are no messages; give at least one, e.g. {"role": "user", "content": "Hello"}'
        )
    return [_check(message, where) for where, message in enumerate(messages)]


def _check(message: Any, where: int) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TemplateError(f"message {where}: expected a dict with role and content, got {_kind(message)}")
    role = message.get("role")
    if not isinstance(role, str) or not ROLE.fullmatch(role):
        known = ", ".join(sorted(KNOWN_ROLES))
        raise TemplateError(f"message {where}: expected a role such as {known}; got {role!r:.60}")
    content = message.get("content")
    if isinstance(content, list | tuple):
        content = "\n".join(_part(part, where) for part in content)
    elif content is None:
        if not message.get("tool_calls"):
            raise TemplateError(f"message {where} ({role}): has no content; give a text, which may be empty")
    elif not isinstance(content, str):
        raise TemplateError(f"message {where} ({role}): expected content to be text, got {_kind(content)}")
    try:
        checked = {str(key): copied(value) for key, value in message.items()}
    except RecursionError:
        raise TemplateError(f"message {where} ({role}): is nested too deep") from None
    return {**checked, "role": role, "content": content}


def _part(part: Any, where: int) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
    raise TemplateError(
        f'message {where}: expected content parts {{"type": "text", "text": ...}}, got {kind!r:.60}; '
        "this engine reads text only"
    )


def copied(value: Any) -> Any:
    """Plain data (dicts, lists, text, numbers) of the same value; TemplateError for anything else."""
    if isinstance(value, Mapping):
        return {str(key): copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return str(value) if isinstance(value, str) else value
    raise TemplateError(
        f"expected plain data (text, numbers, lists, dicts) in messages and tools, got {_kind(value)}"
    )


def mapped(value: Any, change: Callable[[str], str], *, key: str = "", free: bool = False) -> Any:
    """The same data with every text of the caller's changed: not the names of fields, nor known roles and types."""
    if isinstance(value, dict):
        return {
            (change(name) if free else name): mapped(item, change, key=name, free=free or name in FREE_KEYS)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [mapped(item, change, key=key, free=free) for item in value]
    known = not free and (
        (key == "role" and value in KNOWN_ROLES) or (key == "type" and value in KNOWN_TYPES)
    )
    return change(value) if isinstance(value, str) and not known else value


def texts_of(value: Any) -> Iterator[str]:
    """Every text in the data, names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.40}"
