"""Context-free grammars, in Lark's syntax as llguidance reads it, or in GBNF (`root ::= ...`), which is converted."""

from __future__ import annotations

import re

from pellucid.constraints.limits import MAX_DEPTH, check_nesting
from pellucid.constraints.regex import check_repeats
from pellucid.errors import ConstraintError

# A rule of GBNF; Lark has a single colon.
_GBNF = re.compile(r"^\s*[A-Za-z][A-Za-z0-9_-]*\s*::=", re.MULTILINE)
# Attributes of a Lark rule; llguidance leaves a temperature to whoever samples.
_ATTRIBUTES = re.compile(r"^\s*[A-Za-z_]\w*\s*\[([^\]\n]*)\]\s*:", re.MULTILINE)


def lark_grammar(text: str) -> str:
    """llguidance's form. ConstraintError: no GBNF that can be converted, nested too deep, or an attribute that would
    have no effect."""
    from llguidance import LLMatcher

    check_nesting("grammar", text)
    check_repeats("grammar", text)
    if _GBNF.search(text):
        text = _converted(text)
    for found in _ATTRIBUTES.finditer(text):
        if re.search(r"\btemperature\b", found[1]):
            raise ConstraintError(
                f"grammar: a rule cannot set a temperature ('{found[0].strip():.40}'); use temperature="
            )
    return str(LLMatcher.grammar_from_lark(text))


def _converted(text: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return str(gbnf_to_lark(text))
    except RecursionError:
        raise ConstraintError(f"grammar: rules are nested too deep; at most {MAX_DEPTH} are taken") from None
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ConstraintError(f"grammar: cannot be read as GBNF: {problem:.200}") from None
