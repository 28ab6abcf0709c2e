"""What never comes: captures beyond a text, and what-if's forced tokens beyond a run, are said. (Interventions and
forced tokens of a generation: tests/contract/test_interventions.py.)"""

from __future__ import annotations

import pytest

from pellucid import Capture, ForceToken
from pellucid.errors import UsageError

PROMPT = list(range(10, 30))
LAST = len(PROMPT) - 1  # its last position
NEW = {"max_tokens": 12, "ignore_eos": True}


def beyond(start, stop=None):
    return Capture(layers=(1,), positions=(start, stop))


def test_a_capture_beyond_a_text_is_an_error(glass_llm):
    llm = glass_llm
    assert llm.trace(PROMPT, beyond(LAST)).positions.tolist() == [LAST]
    with pytest.raises(UsageError) as caught:
        llm.trace(PROMPT, beyond(LAST + 1, LAST + 4))
    assert str(caught.value) == (
        "capture: it keeps positions 20 to 22, and the text has positions 0 to 19; give positions that are there, or "
        "leave it out"
    )


def test_a_capture_beyond_what_max_tokens_allows_is_an_error(glass_llm):
    """The last token of an output is never computed, so max_tokens=1 computes no position after the prompt's."""
    llm = glass_llm
    final = LAST + NEW["max_tokens"] - 1
    found = llm.generate(PROMPT, **NEW, capture=beyond(final))
    assert found.captured.positions.tolist() == [final] and found.notes == ()
    message = r"it keeps positions from {} on, and the prompt with max_tokens has positions 0 to {};"
    with pytest.raises(UsageError, match=message.format(final + 1, final)):
        llm.generate(PROMPT, **NEW, capture=beyond(final + 1))
    with pytest.raises(UsageError, match=message.format(LAST + 1, LAST)):
        llm.generate(PROMPT, max_tokens=1, capture=beyond(LAST + 1))
    with pytest.raises(UsageError, match=f"and the context has positions 0 to {llm.context_length - 1};"):
        llm.generate(PROMPT, capture=beyond(llm.context_length))
    for positions in ("all", "prompt", "generated"):
        found = llm.generate(PROMPT, max_tokens=1, capture=Capture(layers=(1,), positions=positions))
        assert len(found.captured) and found.notes == ()


def test_a_capture_that_the_text_ended_before_is_a_note(glass_llm):
    llm = glass_llm
    plain = llm.generate(PROMPT, **NEW, n=3, temperature=1.0, seed=2)
    stop = plain.outputs[1].token_ids[4]
    ends = [s.token_ids.index(stop) + 1 if stop in s.token_ids else 12 for s in plain.outputs]
    params = {**NEW, "n": 3, "temperature": 1.0, "seed": 2, "stop_token_ids": [stop]}
    found = llm.generate(PROMPT, **params, capture=beyond(LAST + 11, LAST + 30))
    assert min(ends) < 12
    assert list(found.notes) == [
        f"sample {index}: not in effect: Capture keeps positions 30 to 48; the last one computed was {LAST + end - 1}"
        for index, end in enumerate(ends)
        if end < 12
    ]
    assert [len(sample.captured) for sample in found.outputs] == [int(end == 12) for end in ends]


def test_a_generation_tells_of_a_capture_still_to_come(glass_llm):
    with glass_llm.begin(PROMPT, ignore_eos=True, capture=beyond(LAST + 3)) as generation:
        note = "not in effect: Capture keeps positions from 22 on; the last one computed was "
        for expected in ([f"{note}19"], [f"{note}20"], [f"{note}21"], []):
            generation.step()
            assert generation.notes == expected


@pytest.fixture
def run(glass_llm, tmp_path):
    """Two samples, of 12 tokens and of as many as there are before the first of a token."""
    params = {**NEW, "n": 2, "temperature": 5.0, "seed": 3}  # nearly uniform over 320 tokens
    plain = glass_llm.generate(PROMPT, **params)
    ids = [sample.token_ids for sample in plain.outputs]
    stop = next(t for i, t in enumerate(ids[1]) if i in range(2, 10) and t not in ids[0])
    glass_llm.generate(PROMPT, **params, stop_token_ids=[stop], record=tmp_path / "run")
    return tmp_path / "run", [len(ids[0]), ids[1].index(stop) + 1]


def test_what_if_forces_a_token_beyond_the_run(glass_llm, run):
    llm, (path, (longest, short)) = glass_llm, run
    with pytest.raises(
        UsageError, match="token 7 is forced at step 12, and there are steps 0 to 11; give a step"
    ):
        llm.what_if(path, force_at={3: 8, longest: 7})
    found = llm.what_if(path, force_at={longest - 1: 7})
    note = f"branch 1: not in effect: token 7 is forced at step 11; there were {short} steps"
    assert found.notes == [note] == found.to_dict()["notes"]
    assert found.lines(llm.tokenizer.token_text)[-1] == note
    assert found.branches[0].turn.index == longest - 1 and found.branches[0].turn.would_be == 7
    assert llm.what_if(path, force_at={0: 7}).notes == [] == llm.what_if(path, seed=8).notes


def test_what_if_forces_nothing_where_the_caller_did(glass_llm, tmp_path):
    """Steps count from the end of the newest prompt, as force_at's do."""
    llm = glass_llm
    with llm.begin(PROMPT, ignore_eos=True, record=tmp_path / "run") as generation:
        generation.run(2)
        generation.force(9)
        generation.step()
    taken = llm.what_if(tmp_path / "run", force_at={2: 7})
    assert taken.same and taken.notes == [
        "not in effect: token 7 is forced at step 2, whose token the caller gave"
    ]
    assert llm.what_if(tmp_path / "run", force_at={3: 7}).branches[0].turn.index == 3
    with pytest.raises(UsageError, match="there are steps 0 to 3"):
        llm.what_if(tmp_path / "run", force_at={4: 7})


def test_what_a_run_itself_never_came_to_is_a_note_of_what_if(glass_llm, tmp_path):
    """It was allowed then; other settings of the same run do not become an error by it."""
    llm = glass_llm
    first = llm.generate(PROMPT, **NEW).token_ids[0]
    forced = [ForceToken(5, 7)]
    ended = llm.generate(PROMPT, **NEW, stop_token_ids=[first], interventions=forced, record=tmp_path / "run")
    assert len(ended.token_ids) == 1
    note = "not in effect: token 7 is forced at step 5; there were 1 steps"
    assert list(ended.notes) == llm.what_if(tmp_path / "run", top_k=3).notes == [note]
    assert llm.what_if(tmp_path / "run", force_at={5: 7, 0: first}).notes == [note]
