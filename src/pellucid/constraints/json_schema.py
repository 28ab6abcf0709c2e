"""JSON Schema to a grammar of llguidance; what it cannot follow is refused by name.

llguidance reads drafts 4 to 2020-12 and refuses keywords that it knows and does not implement. Keywords that no draft
knows are annotations by the standard (2020-12 core, 6.5), so they are let through, unless they are a slip for one
that is known: `minlength` would otherwise constrain nothing, in silence. A name that begins with `_` or `x-` is a note.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from pellucid.constraints.limits import check_tree
from pellucid.constraints.refusal import Nodes, explained
from pellucid.errors import ConstraintError

# Keywords whose value is a schema, a list of schemas, or a mapping of names to schemas.
_SCHEMA = (
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "items"),
)
_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("$defs", "definitions", "dependentSchemas", "dependencies", "patternProperties", "properties")
_OTHERS = (
    *("type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    *("maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains"),
    *("minContains", "maxProperties", "minProperties", "required", "dependentRequired", "format"),
    *("$ref", "$dynamicRef", "$recursiveRef"),
)
_NOTES = (
    *("$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$comment"),
    *("title", "description", "default", "deprecated", "readOnly", "writeOnly", "examples", "example"),
    *("contentEncoding", "contentMediaType", "discriminator"),
)
CONSTRAINING = frozenset((*_SCHEMA, *_SCHEMAS, *_NAMED, *_OTHERS))
_KNOWN = CONSTRAINING | frozenset(_NOTES)
_BY_FOLDED = {word.lower(): word for word in CONSTRAINING}


def json_grammar(text: str, *, compact: bool, lenient: bool) -> str:
    """llguidance's form of a schema. ConstraintError: no JSON, too large, a slip, or `false` (nothing is valid)."""
    from llguidance import LLMatcher

    schema = _parsed(text)
    if schema is False:
        raise ConstraintError("json_schema: the schema false is satisfied by nothing; give another")
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise ConstraintError(f"json_schema: expected an object, true or false, got {text!r:.60}")
    check_tree("json_schema", schema)
    if "x-guidance" in schema:
        raise ConstraintError("json_schema: x-guidance is not taken from a schema; use json_whitespace")
    if not lenient:
        for where, word, meant in slips(schema):
            raise ConstraintError(f"json_schema: no keyword '{word}' (at {where}); did you mean '{meant}'?")
    options: Any = {"whitespace_flexible": not compact, "lenient": lenient, "coerce_one_of": False}
    return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options))


def refusal(text: str, message: str) -> str:
    """What llguidance says against a schema, with its place there and what to do."""
    return explained(message, nodes(json.loads(text)))


def literals(text: str) -> str:
    """What of a schema stands in the output as it is written: values, patterns, names of properties."""
    found: list[Any] = []
    for _, node in nodes(json.loads(text)):
        found += [node[word] for word in ("enum", "const", "pattern") if word in node]
        named = node.get("properties")
        found += list(named) if isinstance(named, dict) else []
    return json.dumps(found, ensure_ascii=False)


def slips(schema: Any) -> Iterator[tuple[str, str, str]]:
    """(JSON pointer, keyword, what was meant) of each unknown keyword that is nearly one that constrains."""
    for where, node in nodes(schema):
        for word in node:
            if word not in _KNOWN and (meant := _meant(word)):
                yield where, word, meant


def nodes(schema: Any) -> Nodes:
    """Every schema in a schema, with its JSON pointer."""
    pending = [("#", schema)]
    while pending:
        where, node = pending.pop()
        if not isinstance(node, dict):
            continue
        yield where, node
        for word, value in node.items():
            if word in _SCHEMA and isinstance(value, dict):
                pending.append((f"{where}/{word}", value))
            if word in _SCHEMAS and isinstance(value, list):
                pending += [(f"{where}/{word}/{i}", each) for i, each in enumerate(value)]
            if word in _NAMED and isinstance(value, dict):
                pending += [(f"{where}/{word}/{name}", each) for name, each in value.items()]


def _meant(word: str) -> str | None:
    if word.startswith(("_", "x-")):
        return None
    folded = word.lower().replace("_", "").replace("-", "")
    if folded in _BY_FOLDED:
        return _BY_FOLDED[folded]
    near = get_close_matches(word, CONSTRAINING, 1, cutoff=0.85) if 5 <= len(word) <= 24 else []
    return near[0] if near else None


def _parsed(text: str) -> Any:
    def refuse(word: str) -> None:
        raise ConstraintError(f"json_schema: {word} is no JSON; write a finite number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ConstraintError("json_schema: nested too deep; flatten it with $ref") from None
    except ValueError as error:
        if isinstance(error, ConstraintError):
            raise
        raise ConstraintError(f"json_schema: expected JSON, but {error}") from None
