"""A list of texts, of which the output must be one."""

from __future__ import annotations

import json

from pellucid.constraints.limits import MAX_ITEMS
from pellucid.errors import ConstraintError


def choices_grammar(text: str) -> str:
    """llguidance's form of a JSON list of strings: an alternation of literals.

    ConstraintError: too many."""
    from llguidance import LLMatcher

    choices: list[str] = json.loads(text)
    if len(choices) > MAX_ITEMS:
        raise ConstraintError(f"choices: expected at most {MAX_ITEMS}, got {len(choices)}")
    return str(LLMatcher.grammar_from_regex("|".join(map(literal, choices))))


def literal(text: str) -> str:
    """A regular expression that matches this text alone."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):X}}}" for c in text)
