"""JSON as --json writes results: one line, letters as they are, and no number that JSON does not have."""

from __future__ import annotations

import json
from typing import Any

import click


def to_json(value: Any) -> str:
    """RFC 8259 has no infinities: the logarithm of a probability of 0, or the margin of a token that was left alone,
    is null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def write(value: Any) -> None:
    click.echo(to_json(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value
