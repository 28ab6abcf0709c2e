"""Rows and choices of positions that stand already: the same bits as `llm.logits` and as when they were chosen."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.errors import UsageError
from pellucid.held.past_rows import choice_at, past_rows


def test_rows_have_the_bits_of_one_pass(glass_llm):
    generation = glass_llm.begin("the quick brown fox jumps", max_tokens=9)
    generation.run()
    ids = generation.token_array.tolist()
    whole = glass_llm.logits(ids)
    for start, stop in ((1, len(ids) + 1), (3, 4), (len(ids), len(ids) + 1), (5, len(ids) - 2)):
        got = {}
        cost = past_rows(generation, start, stop, lambda at, row, got=got: got.update({at: row.copy()}))
        assert list(got) == list(range(start, stop))
        for at, row in got.items():
            assert row.tobytes() == whole[at - 1].tobytes()
        assert cost.computed + cost.reused == stop - 1
        assert cost.computed >= stop - start
    assert generation.token_array.tolist() == ids


def test_only_what_is_wanted_is_computed(glass_llm):
    generation = glass_llm.begin("the quick brown fox jumps over the lazy dog")
    generation.peek()
    before, n = generation.cost, len(generation)
    for start, stop, computed in ((n, n + 1, 0), (n - 1, n, 1), (5, 6, 1), (n - 3, n + 1, 4)):
        cost = past_rows(generation, start, stop, lambda at, row: None)
        assert (cost.computed, cost.reused) == (computed, stop - 1 - computed)
    assert generation.cost == before


@pytest.mark.parametrize("start, stop", [(0, 2), (2, 2), (3, 2), (1, 99)])
def test_rows_out_of_range(glass_llm, start, stop):
    generation = glass_llm.begin("abc")
    with pytest.raises(UsageError, match="expected 1 <= start < stop <= "):
        past_rows(generation, start, stop, lambda at, row: None)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.5, "seed": 3},
        {"temperature": 0.9, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.3, "seed": 8},
        {"temperature": 1.0, "mirostat": 2, "seed": 5},
    ],
)
def test_every_choice_is_made_again(glass_llm, settings):
    """Also of stages that remember: their states are those before each position."""
    generation = glass_llm.begin("once upon a time", max_tokens=20, ignore_eos=True, **settings)
    generation.run()
    made = []
    start = len(generation) - len(generation.tokens)

    def take(position, row):
        made.append((position, row.copy()))

    past_rows(generation, start, len(generation), take)
    again = [choice_at(generation, position, row) for position, row in made]
    assert [choice.token_id for choice in again] == generation.tokens
    assert [choice.position for choice in again] == list(range(start, len(generation)))
    assert np.isfinite([choice.logprob for choice in again]).all()


def test_other_settings_choose_otherwise_without_changing_anything(glass_llm):
    generation = glass_llm.begin("once upon a time", temperature=1.0, seed=1)
    step = generation.peek()
    drawn = set()
    for seed in range(30):
        generation.configure(seed=seed)
        drawn.add(choice_at(generation, len(generation), step.logits).token_id)
    assert len(drawn) > 5
    assert generation.tokens == []


def test_choice_in_the_prompt_is_refused(glass_llm):
    generation = glass_llm.begin("once upon a time")
    with pytest.raises(UsageError, match="expected a position from"):
        choice_at(generation, 1, generation.peek().logits)
