"""What cannot be followed is refused, by name, in one line, in bounded time and memory."""

from __future__ import annotations

import json
import warnings
from itertools import product

import pytest
from toy_vocabulary import ToyVocabulary

from pellucid.constraints.base import Source
from pellucid.constraints.compiled import Compiler
from pellucid.constraints.guard import is_plain
from pellucid.errors import ConstraintError, UsageError


@pytest.fixture(scope="module")
def compiler():
    vocabulary = ToyVocabulary(*map(chr, range(32, 127)))
    return Compiler(vocabulary, vocabulary.vocabulary_size, vocabulary.eos_ids)


def schema(value):
    return Source("json_schema", json.dumps(value))


REFUSED = [
    (schema({"not": {"type": "string"}}), '"not" (at #/not) cannot be followed; say what is allowed instead'),
    (
        schema({"properties": {"a": {"items": {"dependencies": {}}}}}),
        "(at #/properties/a/items/dependencies)",
    ),
    (schema({"allOf": [{"oneOf": [{"type": "integer"}, {"type": "number"}]}]}), "(at #/allOf/0/oneOf)"),
    (schema({"$defs": {"x": {"format": "wibble"}}, "$ref": "#/$defs/x"}), "(at #/$defs/x/format)"),
    (schema({"properties": {"b": {"type": "string", "pattern": "("}}}), "(at #/properties/b/pattern)"),
    (schema({"properties": {"b": {"type": ["strin"]}}}), "(at #/properties/b/type)"),
    (schema({"properties": {"b": {"$ref": "#/nowhere"}}}), "(at #/properties/b/$ref)"),
    (schema({"enum": ["grün"]}), "no tokens for 'ü'"),
    (Source("regex", "größe"), "no tokens for 'ö', 'ß'"),
    (Source("grammar", 'root ::= "é"'), "no tokens for 'é'"),
    (Source("choices", json.dumps(["fine", "é", "ü"])), "cannot spell 'é'"),
    (schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
    (schema({"type": "array", "contains": {}}), "contains"),
    (schema({"if": {}, "then": {}}), '"if", "then"'),
    (schema({"type": "string", "minlength": 3}), "did you mean 'minLength'"),
    (schema({"properties": {"a": {"anyOf": [{"max_length": 3}]}}}), "#/properties/a/anyOf/0"),
    (schema({"type": "string", "format": "wibble"}), "wibble"),
    (schema({"oneOf": [{"type": "integer"}, {"type": "number"}]}), "oneOf"),
    (schema({"$ref": "http://example.com/x.json"}), "does not fetch"),
    (schema({"allOf": [{"type": "string"}, {"type": "integer"}]}), "Unsatisfiable"),
    (schema({"enum": []}), "Unsatisfiable"),
    (schema({"$ref": "#"}), "no text satisfies it"),
    (schema({"x-guidance": {"lenient": True}, "not": {}}), "x-guidance"),
    (schema(False), "false is satisfied by nothing"),
    (Source("json_schema", "[1"), "expected JSON"),
    (Source("json_schema", '{"minimum": NaN}'), "NaN is no JSON"),
    (Source("regex", "("), "unclosed group"),
    (Source("regex", "(?=a)b"), "invalid regex"),
    (Source("regex", "\\bword\\b"), "lookarounds"),
    (Source("grammar", "start: start"), "no text satisfies it"),
    (Source("grammar", 'begin: "a"'), "no start rule"),
    (Source("grammar", "start: other"), "other"),
    (Source("grammar", 'start[temperature=0.5]: "a"'), "temperature"),
    (Source("grammar", 'root ::= "a" missing\n'), "missing"),
    (Source("grammar", 'root ::= "a'), "GBNF"),
]


@pytest.mark.parametrize("source, words", REFUSED, ids=lambda v: v.text[:30] if isinstance(v, Source) else "")
def test_is_refused_by_name(compiler, source, words):
    with pytest.raises(ConstraintError) as caught:
        compiler.compile(source)
    message = str(caught.value)
    assert words in message
    assert message.startswith(source.kind + ": ")
    assert "\n" not in message and len(message) < 400
    assert isinstance(caught.value, UsageError) and caught.value.exit_code == 2


# Each ended the process, or took minutes, when llguidance's own limits were all there was.
HOSTILE = [
    Source("grammar", "start: r0\n" + "\n".join(f"r{i}: r{i + 1}?" for i in range(3000)) + '\nr3000: "a"'),
    schema({"allOf": [{"type": "string", "pattern": f".*{chr(97 + i)}.{{30}}"} for i in range(26)]}),
    schema({"type": "integer", "multipleOf": 9999991}),
]
# Refused by size and shape alone.
LARGE = [
    Source("json_schema", "[" * 100_000 + "]" * 100_000),
    Source("json_schema", '{"anyOf":[' * 70 + "{}" + "]}" * 70),
    schema({"enum": [str(i) for i in range(20_000)]}),
    schema({"properties": {f"p{i}": {} for i in range(2_001)}}),
    Source("json_schema", '"' + "x" * 300_000 + '"'),
    Source("regex", "a" * 5_000),
    Source("regex", "(" * 100 + "a" + ")" * 100),
    Source("regex", "a{99999}"),
    Source("grammar", "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000),
    Source("grammar", "start: " + "x " * 200_000),
    Source("choices", json.dumps([str(i) for i in range(20_000)])),
]


@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source.text[:30])
def test_what_would_hang_or_crash_is_met_in_another_process(compiler, source):
    assert not is_plain(source)
    with pytest.raises(ConstraintError, match="make it smaller"):
        compiler.compile(source)


@pytest.mark.parametrize("source", LARGE, ids=lambda source: source.text[:30])
def test_what_is_too_large_is_not_compiled(compiler, source):
    with pytest.raises(ConstraintError):
        compiler.compile(source)


def test_notes_are_no_keywords_and_ordinary_schemas_are_plain(compiler):
    source = schema(
        {
            "type": "object",
            "x-order": 1,
            "_format": "off",
            "javaType": "A",
            "properties": {"minlength": {"type": "string", "pattern": "^[a-z]{1,20}$"}},
        }
    )
    assert is_plain(source)
    assert compiler.compile(source).ignored == ()


def test_lenient_tells_what_it_leaves_out(compiler):
    source = schema({"type": "array", "uniqueItems": True})._replace(lenient=True)
    compiled = compiler.compile(source)
    assert any("uniqueItems" in note for note in compiled.ignored)


def test_other_vocabularies_spell_beyond_ascii():
    """By whole characters, by parts of them, or not at all; and what they can spell is not refused."""
    whole = ToyVocabulary("a", "é", "xö")
    state = Compiler(whole, whole.vocabulary_size, whole.eos_ids).compile(
        Source("choices", json.dumps(["é", "aé"]))
    )
    assert state.state().allowed().tolist() == [0, 1]
    with pytest.raises(ConstraintError, match="cannot spell 'ö'; write"):  # its only token has an x before it
        Compiler(whole, whole.vocabulary_size, whole.eos_ids).compile(
            Source("choices", json.dumps(["a", "ö"]))
        )


MISSING = [
    (Source("regex", "é|fine"), "'é'"),
    (Source("regex", "gr(ö|o)(ß|ss)e?"), "'ö', 'ß'"),
    (schema({"enum": ["rot", "grün"]}), "'ü'"),
    (schema({"properties": {"größe": {"type": "string"}, "a": {"pattern": "é|e"}}}), "'ö', 'ß', 'é'"),
    (Source("grammar", 'root ::= "é" | "fine"'), "'é'"),
]
NOT_MISSING = [
    Source("regex", "[a-z]+"),
    schema({"description": "größe", "enum": ["rot"], "$comment": "é"}),
    Source("grammar", 'root ::= "fine" # é'),
    Source("grammar", 'start: "fine" // é'),
]


@pytest.mark.parametrize("source, words", MISSING, ids=lambda v: v.text[:30] if isinstance(v, Source) else "")
def test_what_a_vocabulary_can_never_spell_is_said(compiler, source, words):
    """One alternative is left, so this is no error; but who wrote the other hears of it."""
    with pytest.warns(UserWarning, match=f"^{source.kind}: this vocabulary has no tokens for {words};"):
        compiled = compiler.compile(source)
    assert len(compiled.state().allowed())


@pytest.mark.parametrize("source", NOT_MISSING, ids=lambda source: source.text[:30])
def test_notes_and_comments_are_not_missed(compiler, source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiler.compile(source)


@pytest.mark.parametrize(
    "pieces, can",
    [
        ((b"\xe2\x82\xac",), True),  # the euro sign whole,
        ((b"a\xe2\x82\xacb",), True),  # within a longer token,
        ((b"a\xe2", b"\x82", b"\xacb"), True),  # in pieces with a neighbour at either end,
        ((b"\xe2\x82", b"\xac"), True),
        ((b"\xe2", b"\x82\xacb"), True),
        ((b"\xe2a", b"\x82", b"\xac"), False),  # its first byte has something after it
        ((b"\xe2", b"\x82"), False),
        ((b"\xe2", b"\x82a", b"\xac"), False),
        ((b"\xe2", b"a\x82", b"\xac"), False),
        ((b"\xe2\x82", b"\x82\xac", b"a\xac"), False),  # they overlap, and none begins with the last byte
    ],
)
def test_pieces_of_a_character_spell_it_or_not(pieces, can):
    """Against all sequences of up to four tokens."""
    vocabulary = ToyVocabulary("a")
    vocabulary.pieces += pieces
    vocabulary.end, vocabulary.vocabulary_size = len(pieces) + 1, len(pieces) + 2
    vocabulary.eos_ids = frozenset({vocabulary.end})
    tokens = [vocabulary.token_bytes(i) for i in range(vocabulary.end)]
    rows = (b"".join(row) for length in range(1, 5) for row in product(tokens, repeat=length))
    assert any("€".encode() in row for row in rows) == can
    found = Compiler(vocabulary, vocabulary.vocabulary_size, [vocabulary.end])._missing_characters("a€")
    assert found == ("" if can else "'€'")
