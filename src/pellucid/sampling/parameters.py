"""One parameter of SamplingParams: its name, kind, range and help, and the check of a value. Knows no
processor."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.errors import UsageError

_JSON_TYPES: dict[str, dict[str, Any]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "ids": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    "bias": {"type": "object", "additionalProperties": {"type": "number"}},
    "strings": {"type": "array", "items": {"type": "string", "minLength": 1}},
}


@dataclass(frozen=True)
class Parameter:
    """kind: "int", "float", "bool", "ids" (token ids), "bias" (token id -> float) or "strings".

    Ranges are of the value, or of each float in a "bias". `processor`: the registered name of the logits
    processor that reads it; None for a parameter of the request itself.
    """

    name: str
    kind: str
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    optional: bool = False
    processor: str | None = None

    @property
    def range(self) -> str:
        """The range in words, such as "0 < value <= 1"; "" where there is none."""
        low = f"{self.above} < " if self.above is not None else ""
        low = f"{self.minimum} <= " if self.minimum is not None else low
        high = f" <= {self.maximum}" if self.maximum is not None else ""
        return f"{low}value{high}" if low or high else ""

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the value."""
        schema = {**_JSON_TYPES[self.kind]}
        if self.kind in ("int", "float"):
            keys = (("minimum", self.minimum), ("maximum", self.maximum), ("exclusiveMinimum", self.above))
            schema |= {key: bound for key, bound in keys if bound is not None}
        if self.optional:
            schema["type"] = [schema["type"], "null"]
        default = dict(self.default) if self.kind == "bias" else self.default
        return schema | {"default": default, "description": self.help}

    def check(self, value: Any) -> Any:
        """The value in its normal, hashable form (ids: ascending, unique tuple; bias: ascending tuple of
        pairs). UsageError if it is of another type, not finite or out of range."""
        if value is None:
            if self.optional:
                return None
            raise self._error(value)
        return getattr(self, f"_check_{self.kind}")(value)

    def _error(self, value: Any) -> UsageError:
        kinds = {
            "int": "an integer",
            "float": "a finite number",
            "bool": "True or False",
            "ids": "a list of token ids (integers >= 0)",
            "bias": "a mapping of token ids to finite numbers",
            "strings": "a string or a list of strings, none empty",
        }
        wanted = kinds[self.kind] + (f" with {self.range}" if self.range else "")
        none = " or None" if self.optional else ""
        return UsageError(f"{self.name}: expected {wanted}{none}, got {value!r}")

    def _in_range(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
        )

    def _check_bool(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._error(value)
        return value

    def _check_int(self, value: Any) -> int:
        number = _as_int(value)
        if number is None or not self._in_range(number):
            raise self._error(value)
        return number

    def _check_float(self, value: Any) -> float:
        number = _as_float(value)
        if number is None or not self._in_range(number):
            raise self._error(value)
        return number

    def _check_ids(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise self._error(value)
        ids = [_as_int(item) for item in value]
        if any(i is None or not 0 <= i < 2**31 for i in ids):
            raise self._error(value)
        return tuple(sorted({i for i in ids if i is not None}))

    def _check_bias(self, value: Any) -> tuple[tuple[int, float], ...]:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise self._error(value)
        try:
            entries = dict(value)
        except (TypeError, ValueError):
            raise self._error(value) from None
        bias: dict[int, float] = {}
        for key, entry in entries.items():
            # JSON has no other keys than strings: "42" is the id 42.
            token = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else _as_int(key)
            number = _as_float(entry)
            if (
                token is None
                or not 0 <= token < 2**31
                or number is None
                or not self._in_range(number)
                or token in bias
            ):
                raise self._error(value)
            bias[token] = number
        return tuple(sorted(bias.items()))

    def _check_strings(self, value: Any) -> tuple[str, ...]:
        items = (value,) if isinstance(value, str) else value
        if isinstance(items, (bytes, Mapping)) or not isinstance(items, Iterable):
            raise self._error(value)
        strings = tuple(dict.fromkeys(items))
        if not all(isinstance(item, str) and item for item in strings):
            raise self._error(value)
        return strings


def _as_int(value: Any) -> int | None:
    """An integer of any type (NumPy's too); bool is not one."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _as_float(value: Any) -> float | None:
    """A finite number of any real type; bool and strings are none."""
    if isinstance(value, (bool, str, bytes)) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parameters_of(dataclass_type: Any, processor: str | None = None) -> list[Parameter]:
    """The parameters that a dataclass declares with `sampling.base.parameter`."""
    return [
        Parameter(name=field.name, default=field.default, processor=processor, **field.metadata["parameter"])
        for field in dataclasses.fields(dataclass_type)
        if "parameter" in field.metadata
    ]
