"""States against enumeration: every sequence of a small vocabulary, and every way to come to a state."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_vocabulary import ToyVocabulary

from pellucid.constraints.base import Source
from pellucid.constraints.compiled import Compiler
from pellucid.constraints.follower import Follower
from pellucid.errors import ConstraintError

PIECES = ("a", "b", "ab", "ba", "c", "1", "bc1")
LONGEST = 5


@pytest.fixture(scope="module")
def compiler():
    vocabulary = ToyVocabulary(*PIECES)
    return Compiler(vocabulary, vocabulary.vocabulary_size, vocabulary.eos_ids)


CASES = [
    (Source("regex", "a(b|c)*1?"), "a(b|c)*1?"),
    (Source("regex", "(ab)+|c{2,3}"), "(ab)+|c{2,3}"),
    (Source("regex", "^a?b?c?$"), "a?b?c?"),
    (Source("choices", json.dumps(["ab", "abc1", "c", "ba1"])), "ab|abc1|c|ba1"),
    (Source("grammar", 'start: "a" rest\nrest: /b+/ | "c1"'), "a(b+|c1)"),
    (Source("grammar", 'root ::= "a" rest\nrest ::= [b]+ | "c" "1"\n'), "a(b+|c1)"),
]


@pytest.mark.parametrize("source, pattern", CASES, ids=lambda v: v.text[:20] if isinstance(v, Source) else "")
def test_masks_are_those_of_enumeration(compiler, source, pattern):
    """A token is allowed exactly where some text of the language goes on so; the end exactly at a whole text."""
    letters = "abc1"
    language = {
        text
        for n in range(3 * LONGEST + 4)
        if n <= 9
        for text in map("".join, itertools.product(letters, repeat=n))
        if n <= 6 and re.fullmatch(pattern, text)
    }
    prefixes = {text[:i] for text in language for i in range(len(text) + 1)}
    compiled = compiler.compile(source)
    pending = [((), compiled.state())]
    seen = 0
    while pending:
        ids, state = pending.pop()
        text = "".join(PIECES[i] for i in ids)
        seen += 1
        assert state.is_accepting == (text in language)
        expected = [i for i, piece in enumerate(PIECES) if text + piece in prefixes]
        # Texts longer than what was enumerated are unknown, not absent.
        known = [i for i, piece in enumerate(PIECES) if len(text + piece) <= 4]
        allowed = state.allowed().tolist()
        assert [i for i in allowed if i in known] == [i for i in expected if i in known]
        assert (len(PIECES) in allowed) == (text in language)
        for i in range(len(PIECES)):
            assert state.allows([i]) == (i in allowed)
        for i in allowed:
            if i in known:
                after = state.copy()
                after.advance(i)
                pending.append(((*ids, i), after))
    assert seen > 3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_way_to_a_state_is_the_same_state(compiler, data):
    """Advance, copy, roll back, refuse, in any order: the mask is that of a state built anew from the tokens."""
    source = data.draw(st.sampled_from([case[0] for case in CASES]))
    compiled = compiler.compile(source)
    state, ids = compiled.state(), []
    for _ in range(data.draw(st.integers(1, 12))):
        move = data.draw(st.sampled_from(["advance", "advance", "copy", "rollback", "refuse"]))
        allowed = state.allowed().tolist()
        if move == "advance" and allowed and (not ids or ids[-1] != len(PIECES)):
            ids.append(data.draw(st.sampled_from(allowed)))
            state.advance(ids[-1])
        elif move == "copy":
            other, state = state, state.copy()
            if allowed and (not ids or ids[-1] != len(PIECES)):
                other.advance(allowed[0])  # a copy is none of the original's business
        elif move == "rollback":
            count = data.draw(st.integers(0, len(ids)))
            state.rollback(count)
            del ids[len(ids) - count :]
        elif refused := sorted(set(range(len(PIECES) + 1)) - set(allowed)):
            with pytest.raises(ConstraintError):
                state.advance(refused[0])
        anew = compiled.state()
        for i in ids:
            anew.advance(i)
        assert np.array_equal(anew.mask(), state.mask())
        assert anew.num_tokens == state.num_tokens == len(ids)
        assert anew.is_accepting == state.is_accepting


def test_a_follower_follows_rewinds_forks_and_edits(compiler):
    compiled = compiler.compile(Source("regex", "(a|b|c)*1"))
    follower = compiled.follower()
    assert isinstance(follower, Follower)
    for ids in ([0], [0, 1, 4], [0, 1], [0, 0, 0], [], [1, 4, 5, len(PIECES)], [1, 4]):
        for sample in (0, 3):
            anew = compiled.state()
            for i in ids:
                anew.advance(i)
            assert np.array_equal(follower.at(sample, np.array(ids, np.int32)).mask(), anew.mask())
    with pytest.raises(ConstraintError, match="token 0 is not allowed after 1 tokens"):
        follower.at(0, np.array([5, 0], np.int32))
    assert follower.at(0, np.array([0], np.int32)).num_tokens == 1  # an error leaves nothing behind


def test_forced_text_is_the_only_text(compiler):
    """What is forced is allowed, one token after the other, and every way on begins with its text."""
    state = compiler.compile(Source("choices", json.dumps(["abc1ab", "abc1ba"]))).state()
    forced = state.forced()
    text = "".join(PIECES[i] for i in forced)
    assert text and "abc1".startswith(text)
    assert state.allows(forced) == len(forced)
    assert compiler.compile(Source("regex", "a|b")).state().forced() == []


def test_ids_beyond_the_tokenizer_are_never_allowed():
    """Models pad their logits."""
    vocabulary = ToyVocabulary(*PIECES)
    compiled = Compiler(vocabulary, 100, vocabulary.eos_ids).compile(Source("regex", "(?s).*"))
    assert compiled.state().allowed().tolist() == list(range(len(PIECES) + 1))
    assert len(compiled.state().mask()) == 4


def test_the_cache_is_bounded_and_finds_again(compiler):
    first = compiler.compile(Source("regex", "a{1,3}"))
    assert compiler.compile(Source("regex", "a{1,3}")) is first
    for i in range(300):
        compiler.compile(Source("regex", f"a{{{i}}}b*"))
    assert len(compiler._cache) <= 128
    again = compiler.compile(Source("regex", "a{1,3}"))
    assert again is not first and np.array_equal(again.state().mask(), first.state().mask())


@pytest.mark.slow
def test_ten_thousand_schemas_take_no_memory(compiler):
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def compile_some(start: int, stop: int) -> None:
        for i in range(start, stop):
            schema = {"type": "object", "properties": {f"p{i}": {"type": "string", "maxLength": i}}}
            compiler.compile(Source("json_schema", json.dumps(schema)))

    byte_level = ToyVocabulary(*map(chr, range(32, 127)))
    compiler = Compiler(byte_level, byte_level.vocabulary_size, byte_level.eos_ids)
    compile_some(0, 500)
    before = resident()
    compile_some(500, 10_500)
    assert resident() - before < 64 * 1024 * 1024
