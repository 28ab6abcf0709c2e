"""JSON as --json writes results: letters as they are, and no number that JSON does not have."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from pellucid.cli import _console


def to_json(value: Any, indent: int | None = None) -> str:
    """RFC 8259 has no infinities: the logarithm of a probability of 0, or the margin of a token that was left alone,
    is null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)


def write(value: Any, indent: int | None = None) -> None:
    """On a terminal, what would steer it is escaped."""
    text = to_json(value, indent)
    click.echo(_console.harmless_json(text) if _console.is_terminal(sys.stdout) else text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value
