"""Regular expressions: the whole output must match. Syntax of Rust's regex crate, without look-around."""

from __future__ import annotations

import re

from pellucid.constraints.limits import MAX_REPEAT, check_nesting
from pellucid.errors import ConstraintError

# {m}, {m,}, {,n} or {m,n}
REPEAT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


def regex_grammar(text: str) -> str:
    """llguidance's form. `^` at the start and `$` at the end are true there of a whole match, and go.

    ConstraintError: nested or repeated beyond the limits."""
    from llguidance import LLMatcher

    check_nesting("regex", text)
    check_repeats("regex", text)
    return str(LLMatcher.grammar_from_regex(_unanchored(text)))


def check_repeats(kind: str, text: str) -> None:
    """ConstraintError: a {m,n} counts to more than MAX_REPEAT."""
    for found in REPEAT.finditer(text):
        for number in found.groups():
            if number and (len(number) > 9 or int(number) > MAX_REPEAT):
                raise ConstraintError(
                    f"{kind}: '{found[0]:.40}' repeats more than {MAX_REPEAT} times; lower it"
                )


def _unanchored(text: str) -> str:
    text = text.removeprefix("^")
    if text.endswith("$"):
        escapes = len(text) - 1 - len(text[:-1].rstrip("\\"))
        if escapes % 2 == 0:
            text = text[:-1]
    return text
