"""One parameter of SamplingParams: its name, kind, range and help. Knows no processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pellucid.errors import UsageError
from pellucid.sampling.base import fields_of
from pellucid.sampling.values import Invalid, normal_form, plain

_IDS_ITEMS = {"items": {"type": "integer", "minimum": 0}}
_IDS = {"type": "array", **_IDS_ITEMS}
_STRINGS = {"type": "array", "items": {"type": "string", "minLength": 1}}

# Of each kind: its JSON Schema, and what an error says was expected.
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "int": ({"type": "integer"}, "an integer"),
    "float": ({"type": "number"}, "a finite number"),
    "bool": ({"type": "boolean"}, "True or False"),
    "choice": ({"type": "string"}, "one of"),
    "ids": (_IDS, "a list of token ids (integers >= 0)"),
    "bias": (
        {"type": "object", "additionalProperties": {"type": "number"}},
        "a mapping of token ids to finite numbers",
    ),
    "placed": (
        {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
        "a mapping of places in the output (integers >= 0) to token ids",
    ),
    "strings": (_STRINGS, "a string or a list of strings, none empty"),
    "names": (_STRINGS, "a name or a list of different names"),
    "sequences": ({"type": "array", "items": {**_IDS, "minItems": 1}}, "a list of lists of token ids"),
    "sequence_bias": (
        {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}},
        "a list of [token ids, finite number] pairs, or a mapping of tuples to numbers",
    ),
    "schema": ({"type": ["object", "boolean"]}, "a JSON Schema: a dict, its JSON text, or a Pydantic model"),
    "text": ({"type": "string", "minLength": 1}, "a text that is not empty"),
    "breakers": (
        {"type": "array", "items": {"type": ["string", "array"], **_IDS_ITEMS}},
        "a string, or a list of strings (none empty) and lists of token ids",
    ),
    "prompt": ({"type": ["string", "array"], **_IDS_ITEMS}, "a text, or a list of at least one token id"),
    "grammar": ({"type": "string", "minLength": 1}, "the text of a grammar"),
    # A Python function has no form in JSON: only the empty list is valid there.
    "functions": ({"type": "array", "maxItems": 0}, "a list of functions (token_ids, logits) -> logits"),
}


@dataclass(frozen=True)
class Parameter:
    """kind: a key of KINDS. Ranges are of the value, or of each float in a "bias" or "sequence_bias".

    `processor`: the registered name of the logits processor that reads it; None for a parameter of the request
    itself. `modifies`: the parameters of which one must be set for this one to do anything.
    """

    name: str
    kind: str
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    optional: bool = False
    choices: tuple[str, ...] = ()
    modifies: tuple[str, ...] = ()
    processor: str | None = None

    @property
    def range(self) -> str:
        """The range in words, such as "0 < value <= 1"; "" where there is none."""
        if self.choices:
            return " or ".join(self.choices)
        low = f"{self.above} < " if self.above is not None else ""
        low = f"{self.minimum} <= " if self.minimum is not None else low
        high = f" <= {self.maximum}" if self.maximum is not None else ""
        return f"{low}value{high}" if low or high else ""

    @property
    def in_python_only(self) -> bool:
        """Whether its values have no form on a command line or in JSON."""
        return self.kind == "functions"

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the value."""
        schema = {**KINDS[self.kind][0]}
        if self.kind in ("int", "float"):
            keys = (("minimum", self.minimum), ("maximum", self.maximum), ("exclusiveMinimum", self.above))
            schema |= {key: bound for key, bound in keys if bound is not None}
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.optional:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            schema["type"] = [*kinds, "null"]
        return schema | {"default": self.plain(self.default), "description": self.help}

    def check(self, value: Any) -> Any:
        """The value in its normal, hashable form (`values.py`). UsageError if it is of another type, not finite
        or out of range."""
        if value is None and self.optional:
            return None
        try:
            return normal_form(self.kind, value, self._in_range, self.choices)
        except Invalid as error:
            raise self._error(value, str(error)) from None

    def plain(self, value: Any) -> Any:
        """A checked value in plain JSON types."""
        return None if value is None else plain(self.kind, value)

    def _error(self, value: Any, why: str) -> UsageError:
        wanted = KINDS[self.kind][1]
        if self.range:
            wanted += f" {self.range}" if self.choices else f" with {self.range}"
        none = " or None" if self.optional else ""
        because = f": {why}" if why else ""
        return UsageError(f"{self.name}: expected {wanted}{none}, got {value!r}{because}")

    def _in_range(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
        )


def parameters_of(kind: type, processor: str | None = None) -> list[Parameter]:
    """The parameters that a class declares with `sampling.base.parameter`."""
    return [
        Parameter(name=name, default=field.default, processor=processor, **field.metadata["parameter"])
        for name, field in fields_of(kind).items()
        if "parameter" in field.metadata
    ]
