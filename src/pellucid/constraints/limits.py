"""How large a constraint may be. They come from strangers: every one must compile or fail within 2 s and 256 MiB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pellucid.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLParserLimits

# Bytes of UTF-8 text of each kind.
MAX_BYTES = {"json_schema": 256 * 1024, "regex": 4 * 1024, "grammar": 256 * 1024, "choices": 256 * 1024}
MAX_DEPTH = 64  # of arrays and objects in a schema, and of brackets in a grammar or regular expression
MAX_ITEMS = 10_000  # of an enum or another list of a schema, and of choices
MAX_PROPERTIES = 2_000  # of a whole schema: compiling takes time that grows with their square
MAX_REPEAT = 10_000  # of one {m,n} in a regular expression or grammar, and the product of nested ones


def parser_limits() -> LLParserLimits:
    """Of llguidance: the fuel of building lexers and of each mask, in units of about 20 ns (building) and 70 ns (a
    step); lexer states of 1 to 2 kB each."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=1_000_000,
        step_max_items=100_000,
        max_lexer_states=50_000,
        max_grammar_size=500_000,
        verbose_errors=False,
    )


def check_size(kind: str, text: str) -> None:
    """ConstraintError: more bytes than its kind may have."""
    size, most = len(text.encode("utf-8", "surrogatepass")), MAX_BYTES[kind]
    if size > most:
        raise ConstraintError(f"{kind}: expected at most {most} bytes, got {size}; make it smaller")


def check_nesting(kind: str, text: str) -> None:
    """ConstraintError: brackets nested deeper than MAX_DEPTH. Those in quotes and classes count, too."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}" and depth:
            depth -= 1
    if deepest > MAX_DEPTH:
        raise ConstraintError(f"{kind}: brackets are nested {deepest} deep; at most {MAX_DEPTH} are taken")


def check_tree(kind: str, root: Any) -> None:
    """ConstraintError: a JSON value that is nested deeper, or has longer lists, than the bounds above."""
    pending: list[tuple[Any, int]] = [(root, 1)]
    properties = 0
    while pending:
        value, depth = pending.pop()
        if not isinstance(value, dict | list):
            continue
        if depth > MAX_DEPTH:
            raise ConstraintError(f"{kind}: nested more than {MAX_DEPTH} deep; flatten it with $ref")
        if len(value) > MAX_ITEMS:
            raise ConstraintError(f"{kind}: a list of {len(value)} entries; at most {MAX_ITEMS} are taken")
        if isinstance(value, dict):
            named = value.get("properties")
            properties += len(named) if isinstance(named, dict) else 0
        if properties > MAX_PROPERTIES:
            raise ConstraintError(f"{kind}: more than {MAX_PROPERTIES} properties in all; split the schema")
        pending += [(each, depth + 1) for each in (value.values() if isinstance(value, dict) else value)]
