"""The automaton against brute force: on every list, after every mixture of appending and taking back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.decoding.drafts.suffix_automaton import SuffixAutomaton

LISTS = st.lists(st.integers(0, 3), max_size=40)


def earlier(tokens):
    """(length of the longest suffix that occurs earlier, the ends of its earlier occurrences)."""
    n = len(tokens)
    for length in range(n - 1, 0, -1):
        ends = [e for e in range(length, n) if tokens[e - length : e] == tokens[n - length :]]
        if ends:
            return length, ends
    return 0, []


def of(tokens):
    automaton = SuffixAutomaton()
    automaton.extend(tokens)
    return automaton


def columns(automaton):
    return automaton.tokens, automaton.next, automaton.link, automaton.length, automaton.end, automaton.match


@settings(max_examples=300, deadline=None)
@given(LISTS)
def test_the_match_is_the_longest_suffix_that_was_there_before(tokens):
    for n in range(len(tokens) + 1):
        length, ends = earlier(tokens[:n])
        found, end = of(tokens[:n]).match
        assert found == length
        assert end == (ends[-1] if ends else 0), "the latest of its occurrences"


@settings(max_examples=200, deadline=None)
@given(LISTS)
def test_its_words_are_the_substrings_and_no_others(tokens):
    automaton = of(tokens)
    substrings = {()} | {tuple(tokens[i:j]) for i in range(len(tokens)) for j in range(i, len(tokens) + 1)}
    words, stack = set(), [(0, ())]
    while stack:
        state, word = stack.pop()
        assert word not in words, "two ways to one word"
        words.add(word)
        stack += [(target, (*word, token)) for token, target in automaton.next[state].items()]
        if word:
            assert tuple(tokens[automaton.end[state] - len(word) : automaton.end[state]]) == word
    assert words == substrings
    assert len(automaton.link) <= max(2, 2 * len(tokens))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 2), st.integers(-30, -1)), max_size=60))
def test_taking_back_restores_everything(steps):
    """A negative step takes so many tokens back."""
    automaton, tokens = SuffixAutomaton(), []
    for step in steps:
        if step < 0:
            del tokens[max(0, len(tokens) + step) :]
            automaton.truncate(len(tokens))
        else:
            tokens.append(step)
            automaton.append(step)
        assert columns(automaton) == columns(of(tokens))


@settings(max_examples=200, deadline=None)
@given(LISTS, LISTS)
def test_following_another_list_finds_its_longest_suffix(tokens, others):
    automaton, state, matched = of(tokens), 0, 0
    for n, token in enumerate(others, 1):
        state, matched = automaton.follow(state, matched, token)
        inside = [k for k in range(n + 1) if _occurs(others[n - k : n], tokens)]
        assert matched == max(inside)
        end = automaton.end[state]
        assert tokens[end - matched : end] == others[n - matched : n]


@settings(max_examples=100, deadline=None)
@given(LISTS, LISTS)
def test_following_goes_on_while_the_automaton_grows(tokens, others):
    automaton, state, matched = SuffixAutomaton(), 0, 0
    for n, (token, other) in enumerate(zip(tokens, others, strict=False), 1):
        automaton.append(token)
        state, matched = automaton.follow(state, matched, other)
        end = automaton.end[state]
        assert matched == 0 or tokens[end - matched : end] == others[n - matched : n]


def _occurs(word, tokens):
    return any(tokens[i : i + len(word)] == word for i in range(len(tokens) - len(word) + 1))


@pytest.mark.parametrize("tokens, most, expected", [
    ([1, 2, 3, 1], 2, [2, 3]),
    ([1, 2, 3, 1], 8, [2, 3, 1, 2, 3, 1, 2, 3]),
    ([7, 7, 7], 4, [7, 7, 7, 7]),
])  # fmt: skip
def test_a_continuation_repeats_where_it_meets_its_own_end(tokens, most, expected):
    automaton = of(tokens)
    assert automaton.continuation(automaton.match[1], most) == expected


def test_growth_is_linear():
    """Counted, not timed: transitions and states of hard cases (Fibonacci words, runs, random)."""
    rng = random.Random(1)
    fibonacci = [0]
    other = [0, 1]
    while len(other) < 4000:
        fibonacci, other = other, other + fibonacci
    for tokens in (other[:4000], [5] * 4000, [rng.randrange(3) for _ in range(4000)], list(range(4000))):
        automaton = of(tokens)
        assert len(automaton.link) <= 2 * len(tokens)
        assert sum(map(len, automaton.next)) <= 3 * len(tokens)
