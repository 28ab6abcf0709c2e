"""Values of parameters: from what a caller gives to one normal, hashable form, and to plain JSON types."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

InRange = Callable[[float], bool]


class Invalid(Exception):
    """The value is of another type, not finite or out of range; who asked says what was expected. Its text: why, where
    that is not plain."""


def normal_form(kind: str, value: Any, in_range: InRange, choices: tuple[str, ...]) -> Any:
    """ids: ascending, unique. bias: pairs ascending by id; placed: by place. strings: unique. sequence(s): in the
    order given."""
    if kind in ("int", "float"):
        number = as_int(value) if kind == "int" else as_float(value)
        if number is None or not in_range(number):
            raise Invalid
        return number
    if kind in ("bias", "sequence_bias"):
        return _bias(value, in_range) if kind == "bias" else _sequence_bias(value, in_range)
    if kind == "choice":
        if value not in choices:
            raise Invalid
        return value
    return {
        "bool": _bool,
        "ids": _ids,
        "strings": _strings,
        "names": _names,
        "placed": _placed,
        "sequences": _sequences,
        "functions": _functions,
        "schema": _schema,
        "text": _text,
        "grammar": _text,
        "prompt": _prompt,
        "breakers": _breakers,
    }[kind](value)


def plain(kind: str, value: Any) -> Any:
    """A value in normal form, in JSON types; a function becomes its name."""
    if kind == "bias":
        return {str(token): bias for token, bias in value}
    if kind == "placed":
        return {str(place): token for place, token in value}
    if kind == "sequence_bias":
        return [[list(ids), bias] for ids, bias in value]
    if kind == "sequences":
        return [list(ids) for ids in value]
    if kind == "schema":
        return json.loads(value)
    if kind == "functions":
        return [name_of(function) for function in value]
    if kind == "prompt" and not isinstance(value, str):
        return list(value)
    if kind == "breakers":
        return [item if isinstance(item, str) else list(item) for item in value]
    return list(value) if kind in ("ids", "strings", "names") else value


def largest_id(kind: str, value: Any) -> int:
    """The largest token id that a value in normal form names; -1 if it names none."""
    if kind == "prompt" and not isinstance(value, str) and value:
        return int(max(value))
    if kind == "breakers":
        return max((max(item) for item in value if not isinstance(item, str)), default=-1)
    if not value or kind not in ("ids", "bias", "placed", "sequences", "sequence_bias"):
        return -1
    if kind == "placed":
        return int(max(token for _, token in value))
    if kind in ("ids", "bias"):
        return int(value[-1] if kind == "ids" else value[-1][0])
    return max(int(max(entry if kind == "sequences" else entry[0])) for entry in value)


def name_of(function: Callable[..., Any]) -> str:
    """How errors and settings call a function."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def as_int(value: Any) -> int | None:
    """An integer of any type (NumPy's too); bool is not one."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_float(value: Any) -> float | None:
    """A finite number of any real type; bool and strings are none."""
    if isinstance(value, (bool, str, bytes)) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Invalid
    return value


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise Invalid
    return value


def _id(value: Any) -> int:
    token = as_int(value)
    if token is None or not 0 <= token < 2**31:
        raise Invalid
    return token


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(sorted({_id(item) for item in _items(value)}))


def _sequence(value: Any) -> tuple[int, ...]:
    ids = tuple(_id(item) for item in _items(value))
    if not ids:
        raise Invalid
    return ids


def _sequences(value: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(dict.fromkeys(_sequence(item) for item in _items(value)))


def _bias(value: Any, in_range: InRange) -> tuple[tuple[int, float], ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise Invalid
    try:
        entries = dict(value)
    except (TypeError, ValueError):
        raise Invalid from None
    bias: dict[int, float] = {}
    for key, entry in entries.items():
        # JSON has no other keys than strings: "42" is the id 42.
        token = _id(int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else key)
        number = as_float(entry)
        if number is None or not in_range(number) or token in bias:
            raise Invalid
        bias[token] = number
    return tuple(sorted(bias.items()))


def _placed(value: Any) -> tuple[tuple[int, int], ...]:
    """Pairs, ascending by place."""
    whole = _bias(value, lambda _: True)
    if not all(number.is_integer() for _, number in whole):
        raise Invalid
    return tuple((place, _id(int(number))) for place, number in whole)


def _sequence_bias(value: Any, in_range: InRange) -> tuple[tuple[tuple[int, ...], float], ...]:
    pairs = list(value.items() if isinstance(value, Mapping) else _items(value))
    bias: dict[tuple[int, ...], float] = {}
    for pair in pairs:
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Iterable) or len(pair := tuple(pair)) != 2:
            raise Invalid
        ids, number = _sequence(pair[0]), as_float(pair[1])
        if number is None or not in_range(number) or ids in bias:
            raise Invalid
        bias[ids] = number
    return tuple(bias.items())


def _strings(value: Any) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    if isinstance(items, (bytes, Mapping)) or not isinstance(items, Iterable):
        raise Invalid
    strings = tuple(items)
    if not all(isinstance(item, str) and item for item in strings):
        raise Invalid
    return tuple(dict.fromkeys(strings))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Invalid
    return value


def _breakers(value: Any) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(value, str):
        value = (value,)
    items = [item if isinstance(item, str) else _sequence(item) for item in _items(value)]
    if "" in items:
        raise Invalid
    return tuple(dict.fromkeys(items))


def _prompt(value: Any) -> str | tuple[int, ...]:
    return value if isinstance(value, str) else _sequence(value)


def _schema(value: Any) -> str:
    """JSON text, the order of keys as given: objects are written in it. A Pydantic model gives its own schema."""
    make = getattr(value, "model_json_schema", None)
    if make is not None and isinstance(value, type):
        value = make()
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
        if not isinstance(parsed, dict | bool):
            raise Invalid
        return json.dumps(parsed, ensure_ascii=False, allow_nan=False)
    except json.JSONDecodeError as error:
        raise Invalid(f"no valid JSON: {error}") from None
    except (TypeError, ValueError, RecursionError):
        raise Invalid from None


def _names(value: Any) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else tuple(_items(value))
    if not items or len(set(_strings(items))) != len(items):
        raise Invalid
    return items


def _functions(value: Any) -> tuple[Callable[..., Any], ...]:
    functions = tuple(_items(value))
    if not all(callable(item) for item in functions):
        raise Invalid
    return functions
