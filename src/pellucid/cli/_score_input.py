"""Lines of a file of items to be scored: what they may hold, and the key by which a later run knows them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.cli._batch_input import keyed, parse_object, take_identity
from pellucid.errors import UsageError

FIELDS = ("id", "context", "continuations", "choices", "gold")


@dataclass(frozen=True, eq=False)
class ScoreLine:
    """index: of the line in the input, from 0. key: 16 hex digits of the SHA-256 of the line and of what it is run
    with. gold: the index of the right continuation, None: not told. error: why there is nothing to score."""

    index: int
    key: str
    identity: str | int | None = None
    context: str | list[int] = ""
    continuations: tuple[str | list[int], ...] = ()
    gold: int | None = None
    error: UsageError | None = None


def read_items(source: Iterable[bytes], setting: Mapping[str, Any]) -> Iterator[ScoreLine]:
    """setting: what all lines are run with. Empty lines are no items."""
    for index, key, text in keyed(source, setting):
        yield _line(index, key, text)


def _line(index: int, key: str, text: bytes) -> ScoreLine:
    identity = None
    try:
        values = parse_object(text)
        identity = take_identity(values)
        return ScoreLine(index, key, identity, *_item(values))
    except UsageError as error:
        return ScoreLine(index, key, identity, error=UsageError(f"line {index + 1}: {error}"))


def _item(values: dict[str, Any]) -> tuple[str | list[int], tuple[str | list[int], ...], int | None]:
    """(context, continuations, gold)"""
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise UsageError(f"no field '{unknown[0]}'; there are {', '.join(FIELDS)}")
    if "context" not in values or ("continuations" in values) == ("choices" in values):
        raise UsageError("expected context, and either continuations or choices")
    context = values["context"]
    if not _is_text_or_ids(context):
        raise UsageError(f"context: expected a text or token ids, got {context!r:.60}")
    name = "choices" if "choices" in values else "continuations"
    given = values[name]
    if not isinstance(given, list) or not given or not all(map(_is_text_or_ids, given)):
        raise UsageError(f"{name}: expected a list of texts or of token ids, got {given!r:.60}")
    gold = values.get("gold")
    if gold is not None and (
        isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(given)
    ):
        raise UsageError(f"gold: expected an index from 0 to {len(given) - 1}, got {gold!r:.60}")
    return context, tuple(given), gold


def _is_text_or_ids(value: object) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in value)
