"""What lm-evaluation-harness says of a request for text, as sampling parameters. Knows no lm_eval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pellucid.errors import UsageError

# How tasks call the most tokens to generate; the first of them that is given counts, as in the harness.
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class Wanted(NamedTuple):
    """until: strings that end the text, none of them empty. fields: sampling parameters, by our names."""

    max_tokens: int
    until: tuple[str, ...]
    fields: dict[str, Any]

    @property
    def sampled(self) -> bool:
        return bool(self.fields["temperature"])


def wanted(given: Mapping[str, Any], default_length: int) -> Wanted:
    """The harness's rules: greedy unless do_sample, or a temperature, says otherwise; do_sample without a temperature
    is 1. Other names must be those of sampling parameters. UsageError: a value of the wrong kind."""
    fields = dict(given)
    until = fields.pop("until", None)
    strings = [until] if isinstance(until, str) else list(until or [])
    if not all(isinstance(each, str) for each in strings):
        raise UsageError(f"until: expected texts, got {until!r:.60}")
    lengths = [value for name in LENGTHS if (value := fields.pop(name, None)) is not None]
    length = _int("max_gen_toks", lengths[0]) if lengths else default_length
    do_sample, temperature = fields.pop("do_sample", None), fields.pop("temperature", None)
    if do_sample not in (None, True, False):
        raise UsageError(f"do_sample: expected true or false, got {do_sample!r:.60}")
    if do_sample is False:
        temperature = 0.0
    elif temperature is None:
        temperature = 1.0 if do_sample else 0.0
    fields["temperature"] = temperature
    return Wanted(length, tuple(each for each in strings if each), fields)


def _int(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise UsageError(f"{name}: expected a whole number of at least 1, got {value!r:.60}")
    return number


def cut(text: str, until: tuple[str, ...]) -> str:
    """The text before the first of these strings."""
    return text[: min((at for each in until if (at := text.find(each)) >= 0), default=len(text))]
