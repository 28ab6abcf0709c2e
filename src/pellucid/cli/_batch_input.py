"""Lines of a batch: what they may hold, and the key by which a later run knows them again."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

from pellucid.errors import UsageError

FIELDS = ("id", "prompt", "messages", "template_variables", "parse_special", "cache_salt")


@dataclass(frozen=True, eq=False)
class Line:
    """index: of the line in the input, from 0. key: 16 hex digits of the SHA-256 of the line and of what it is run
    with. identity: its "id", None without one. prompt: None where `error` tells why there is none."""

    index: int
    key: str
    identity: str | int | None
    prompt: Any
    fields: dict[str, Any]
    error: UsageError | None = None


def open_lines(source: str, stack: ExitStack) -> IO[bytes]:
    """The lines of a file, or of stdin. UsageError: it cannot be opened."""
    if source == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(open(source, "rb"))
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror or error}") from None


def count_lines(source: str) -> int | None:
    """Lines that are not empty; None where they can be read only once."""
    if not os.path.isfile(source):
        return None
    with open(source, "rb") as lines:
        return sum(1 for line in lines if line.strip())


def read_lines(source: Iterable[bytes], common: Mapping[str, Any], model: str) -> Iterator[Line]:
    """common: fields of every line, which a line's own replace. Empty lines are no requests."""
    for index, key, text in keyed(source, [model, common]):
        yield _line(index, key, text, common)


def keyed(source: Iterable[bytes], setting: Any) -> Iterator[tuple[int, str, bytes]]:
    """(index, key, text) of every line that is not empty. setting: JSON data, a part of each key."""
    prefix = json.dumps(setting, sort_keys=True).encode()
    for index, raw in enumerate(source):
        text = raw.strip()
        if text:
            yield index, hashlib.sha256(prefix + b"\n" + text).hexdigest()[:16], text


def _line(index: int, key: str, text: bytes, common: Mapping[str, Any]) -> Line:
    identity: str | int | None = None
    try:
        values = parse_object(text)
        identity = take_identity(values)
        return Line(index, key, identity, _prompt(values), {**common, **values})
    except UsageError as error:
        return Line(index, key, identity, None, {}, error)


def take_identity(values: dict[str, Any]) -> str | int | None:
    """The "id", taken out of a line's values. UsageError: it is neither a text nor an integer."""
    given = values.pop("id", None)
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        raise UsageError(f"id: expected a text or an integer, got {given!r:.60}")
    return given


def parse_object(text: bytes) -> dict[str, Any]:
    """One line's JSON object. UsageError: it is none."""
    try:
        values = json.loads(text.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 text at byte {error.start}") from None
    except RecursionError:
        raise UsageError("nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"expected a JSON object, got {type(values).__name__}")
    return values


def _refuse(name: str) -> Any:
    raise UsageError(f"{name} is no JSON number")


def _prompt(values: dict[str, Any]) -> Any:
    """Taken out of the values, whose names are then all checked."""
    from pellucid.prompts import is_messages
    from pellucid.sampling.params import SamplingParams

    known = {field.name for field in SamplingParams.fields() if not field.in_python_only}.union(FIELDS)
    unknown = sorted(set(values) - known)
    if unknown:
        from difflib import get_close_matches

        near = get_close_matches(unknown[0], known, 1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else "there are prompt, messages, id and the sampling parameters"
        )
        raise UsageError(f"no field '{unknown[0]}'; {hint}")
    if ("prompt" in values) == ("messages" in values):
        raise UsageError("expected either prompt or messages" + (", got both" if "prompt" in values else ""))
    if "prompt" in values:
        if "template_variables" in values:
            raise UsageError("template_variables belong to messages; this line has a prompt")
        prompt = values.pop("prompt")
        if is_messages(prompt):
            raise UsageError("prompt: expected text or token ids; chat messages belong under messages")
        return prompt
    messages = values.pop("messages")
    if not is_messages(messages):
        raise UsageError("messages: expected a list of objects with role and content")
    if "parse_special" in values:
        raise UsageError("parse_special does not go with messages: they never become control tokens")
    return messages
