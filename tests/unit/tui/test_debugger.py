"""The debugger's commands and views, without a terminal: against generate, llm.logits and Generation itself."""

from __future__ import annotations

from threading import Event

import numpy as np
import pytest

from pellucid.errors import PellucidError, UsageError
from pellucid.held.past_rows import choice_at
from pellucid.tui import probabilities
from pellucid.tui.debugger import Debugger
from pellucid.tui.looking import MOST_ROWS, make_layers, make_view
from pellucid.tui.view import PROMPT

HOT = {"temperature": 1.2, "top_k": 30, "seed": 3}


def prepared(debugger):
    for _ in debugger.prepare():
        pass
    return make_view(debugger)


def softmax(rows):
    rows = rows.astype(np.float64)
    p = np.exp(rows - rows.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def run(debugger, count):
    stop, seen = Event(), []

    def on_token():
        seen.append(len(debugger.generation))
        if len(seen) == count:
            stop.set()

    return debugger.run(stop, on_token)


# --- looking --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sampling", [{}, HOT], ids=["greedy", "hot"])
def test_every_token_has_its_probability(make_debugger, step_llm, sampling):
    """The prompt's, the drawn ones', the chosen and the forced ones', on both branches."""
    debugger = make_debugger(**sampling)
    run(debugger, 5)
    debugger.force(" zebra")
    debugger.choose(77)
    for back in (0, 4):
        if back:
            debugger.move(-back)
            debugger.choose(99)
            debugger.step()
        view = prepared(debugger)
        ids = debugger.generation.token_array.tolist()
        p = softmax(step_llm.logits(ids))
        assert view.cells[0].probability is None and view.uncoloured == 0
        got = [cell.probability for cell in view.cells[1:]]
        np.testing.assert_allclose(got, [p[i, ids[i + 1]] for i in range(len(ids) - 1)], rtol=1e-9)


@pytest.mark.parametrize("sampling", [{}, HOT], ids=["greedy", "hot"])
def test_the_distribution_at_every_position(make_debugger, step_llm, sampling):
    debugger = make_debugger(**sampling)
    run(debugger, 6)
    ids = debugger.generation.token_array.tolist()
    logits = step_llm.logits(ids)
    p = softmax(logits)
    start = len(debugger.generation.prompt_tokens)
    for position in range(len(ids), -1, -1):
        view = prepared(debugger)
        assert view.cursor == position and view.ids == tuple(ids[:position])
        if position == 0:
            assert view.look is None
            break
        look, row = view.look, logits[position - 1]
        order = np.lexsort((np.arange(len(row)), -row))
        assert [each.token_id for each in look.rows] == order[:MOST_ROWS].tolist()
        np.testing.assert_allclose(
            [each.probability for each in look.rows], p[position - 1][order[:MOST_ROWS]], rtol=1e-9
        )
        if position < len(ids):
            assert look.stands.token_id == ids[position] and order[look.stands.rank] == ids[position]
        if start <= position < len(ids):
            assert look.choice.token_id == ids[position], "the same settings choose what stands there"
            assert look.kind == "drawn"
        elif position < start:
            assert look.choice is None and "prompt" in look.no_choice and look.kind == PROMPT
            assert all(each.processed is None for each in look.rows)
        if look.choice is not None and sampling:
            kept = [each for each in look.rows if each.processed]
            assert len(kept) == 30 and sum(each.processed for each in kept) == pytest.approx(1)
        debugger.move(-1)


def test_the_text_is_decoded_across_tokens(make_debugger, step_llm):
    """The tiny vocabulary has these characters byte by byte."""
    text = "a \u65e5\u672c \u20ac z"
    view = prepared(make_debugger(text))
    assert "".join(cell.text for cell in view.cells).endswith(text)
    texts = [cell.text for cell in view.cells]
    for character in "\u65e5\u672c\u20ac":
        at = texts.index(character)
        assert texts[at - 2 : at] == ["", ""]
    assert view.branches[0].tail.endswith(text)


def test_looking_changes_nothing(make_debugger):
    debugger = make_debugger(**HOT)
    run(debugger, 4)
    before = (debugger.generation.token_array.tolist(), debugger.generation.edition)
    for by in (-3, -1, 2, -100, 100):
        debugger.move(by)
        prepared(debugger)
    assert (debugger.generation.token_array.tolist(), debugger.generation.edition) == before


def test_rows_are_kept_but_not_for_ever(make_debugger):
    debugger = make_debugger()
    run(debugger, 40)
    for _ in range(40):
        debugger.move(-1)
        prepared(debugger)
    assert len(debugger._rows) == 16


def test_a_setting_shows_its_effect_at_once(make_debugger):
    """Also where the cursor is on a token that stands: what these settings would have chosen there."""
    debugger = make_debugger()
    run(debugger, 3)
    debugger.move(-2)
    before = prepared(debugger).look
    assert before.choice.stages == ()
    debugger.configure("temperature=1.5 top-k=2 seed=9")
    view = prepared(debugger)
    assert [stage.name for stage in view.look.choice.stages] == ["temperature", "top_k"]
    assert sum(1 for row in view.look.rows if row.processed) == 2
    assert [row.probability for row in view.look.rows] == [row.probability for row in before.rows]
    logits = debugger.logits_at(view.cursor)
    assert view.look.choice.token_id == choice_at(debugger.generation, view.cursor, logits).token_id
    assert view.settings == "temperature=1.5 seed=9 ignore_eos=True top_k=2"
    debugger.warm(-0.4)
    assert debugger.generation.params.temperature == pytest.approx(1.1)
    debugger.warm(-9)
    assert debugger.generation.params.temperature == 0


def test_settings_that_leave_no_token_are_said(make_debugger):
    debugger = make_debugger()
    debugger.configure("allowed_ids=5 bad_words_ids=5")
    look = prepared(debugger).look
    assert look.choice is None and "no token is left" in look.no_choice
    with pytest.raises(PellucidError, match="no token is left"):
        debugger.step()
    assert len(debugger.generation) == len(debugger.generation.prompt_tokens)


def test_a_long_prompt_comes_in_pieces_and_says_what_is_not_computed(make_debugger, step_llm, monkeypatch):
    monkeypatch.setattr(probabilities, "PIECE", 8)
    monkeypatch.setattr(probabilities, "MOST_COLOURED", 20)
    text = "the quick brown fox jumps over the lazy dog again and again"
    generation = step_llm.begin(text + text[::-1], ignore_eos=True)
    debugger = Debugger(step_llm, generation, lambda name, value: value)
    n = len(generation)
    pieces = list(debugger.prepare(most=20))
    assert [done for done, _ in pieces[:2]] == [8, 16] and pieces[-1][0] >= n - 8
    assert {of for _, of in pieces} == {n}
    view = make_view(debugger)
    assert view.uncoloured == n - 21
    assert [cell.probability is None for cell in view.cells] == [True] * (n - 20) + [False] * 20
    list(debugger.prepare(most=None))
    view = make_view(debugger)
    assert view.uncoloured == 0
    p = softmax(step_llm.logits(generation.token_array.tolist()))
    ids = generation.token_array.tolist()
    np.testing.assert_allclose(
        [cell.probability for cell in view.cells[1:]], [p[i, ids[i + 1]] for i in range(n - 1)], rtol=1e-9
    )
    assert list(debugger.prepare()) == [], "nothing is missing now"


# --- tokens ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sampling", [{}, HOT], ids=["greedy", "hot"])
def test_steps_are_those_of_generate(make_debugger, step_llm, sampling):
    debugger = make_debugger(**sampling)
    want = step_llm.generate("the quick brown fox", max_tokens=12, ignore_eos=True, **sampling).token_ids
    debugger.step()
    debugger.step()
    assert run(debugger, 10) == "10 tokens, stopped"
    assert debugger.generation.tokens == want
    assert debugger.back() == "1 token taken back"
    debugger.move(-4)
    assert debugger.back() == "4 tokens taken back"
    assert debugger.generation.tokens == want[:7] and debugger.at_end
    run(debugger, 5)
    assert debugger.generation.tokens == want


def test_step_before_the_end_goes_over_what_is_there(make_debugger):
    debugger = make_debugger()
    run(debugger, 3)
    debugger.move(-2)
    tokens = debugger.generation.tokens
    debugger.step()
    assert debugger.generation.tokens == tokens and debugger.cursor == len(debugger.generation) - 1


def test_run_to_the_end(make_debugger):
    debugger = make_debugger(max_tokens=4)
    debugger.move(-3)
    assert run(debugger, 100) == "4 tokens, then the end: length"
    assert prepared(debugger).finish_reason == "length"
    with pytest.raises(UsageError, match="the generation has ended"):
        run(debugger, 1)
    assert len(debugger.generation.tokens) == 4


def test_choosing_at_the_end_forces(make_debugger):
    debugger = make_debugger()
    debugger.choose(50)
    assert debugger.generation.tokens == [50] and len(debugger.branches) == 1
    view = prepared(debugger)
    assert view.cells[-1].kind == "forced" and view.cursor == len(view.cells)


def test_choosing_by_rank(make_debugger):
    debugger = make_debugger()
    row = prepared(debugger).look.rows[4]
    debugger.choose_rank(4)
    assert debugger.generation.tokens == [row.token_id]
    with pytest.raises(UsageError, match="none of rank 1000"):
        debugger.choose_rank(999)


def test_choosing_before_the_end_makes_a_branch(make_debugger):
    debugger = make_debugger()
    run(debugger, 5)
    tokens = debugger.generation.tokens
    debugger.move(-3)
    other = (tokens[2] + 1) % 320
    debugger.choose(other)
    assert debugger.generation.tokens == [*tokens[:2], other]
    assert debugger.branches[0].tokens == tokens
    view = prepared(debugger)
    assert [(b.number, b.depth, b.current, b.num_tokens) for b in view.branches] == [
        (1, 0, False, len(debugger.branches[0])),
        (2, 1, True, len(debugger.branches[0]) - 2),
    ]
    assert view.branches[1].forked_at == len(debugger.generation.prompt_tokens) + 2


def test_choosing_what_stands_moves_on(make_debugger):
    debugger = make_debugger()
    run(debugger, 3)
    debugger.move(-3)
    assert debugger.choose(debugger.generation.tokens[0]) == "that token stands there"
    assert len(debugger.branches) == 1 and debugger.cursor == len(debugger.generation) - 2


def test_forcing_a_text(make_debugger, step_llm):
    debugger = make_debugger()
    run(debugger, 2)
    said = debugger.force(" zebra crossing")
    given = [record for record in debugger.generation.records if record.kind == "given"]
    assert said == f"{len(given)} tokens forced"
    assert debugger.generation.text.endswith(" zebra crossing")
    debugger.move(-len(given))
    debugger.force(" lion")
    assert debugger.generation.text.endswith(" lion") and "zebra" not in debugger.generation.text
    assert "zebra" in debugger.branches[0].text


@pytest.mark.parametrize("command", ["fork", "back", "force", "choose", "choose_rank"])
def test_at_the_first_token(make_debugger, command):
    debugger = make_debugger()
    debugger.move(-100)
    assert debugger.cursor == 0
    arguments = {"force": ["x"], "choose": [5], "choose_rank": [1]}.get(command, [])
    with pytest.raises(UsageError):
        getattr(debugger, command)(*arguments)
    assert len(debugger.branches) == 1


# --- branches -------------------------------------------------------------------------------------------
def test_fork_switch_and_drop(make_debugger):
    debugger = make_debugger(**HOT)
    run(debugger, 4)
    assert debugger.fork() == f"branch 2 from position {len(debugger.branches[0])}"
    debugger.configure("seed=77")
    run(debugger, 4)
    debugger.switch(1)
    assert debugger.current == 0 and debugger.at_end
    debugger.switch(-1)
    assert debugger.current == 1
    debugger.move(-2)
    debugger.fork()
    assert [row.depth for row in prepared(debugger).branches] == [0, 1, 2]
    debugger.current = 1
    assert debugger.drop() == "branch 2 is closed"
    view = prepared(debugger)
    assert [(row.number, row.depth) for row in view.branches] == [(1, 0), (2, 1)]
    debugger.drop()
    with pytest.raises(UsageError, match="the only branch"):
        debugger.drop()
    assert len(prepared(debugger).branches) == 1


# --- settings and files ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text, message",
    [
        ("temperature", "expected name=value"),
        ("temprature=1", "no sampling parameter 'temprature'"),
        ("temperature=hot", "temperature"),
        ("top_p=1.5", "top_p"),
        ("stop='a", "No closing quotation"),
        ("n=3", "one sample"),
    ],
)
def test_wrong_settings_change_nothing(make_debugger, text, message):
    debugger = make_debugger()
    before = debugger.generation.params
    with pytest.raises(UsageError, match=message):
        debugger.configure(text)
    assert debugger.generation.params == before
    debugger.step()


def test_no_setting_is_hidden(make_debugger):
    debugger = make_debugger(stop=["zzz"], allowed_ids=list(range(100)), regex=None, repetition_penalty=1.25)
    shown = prepared(debugger).settings
    assert "repetition_penalty=1.25" in shown and "stop=" in shown and "zzz" in shown
    assert "allowed_ids=(0, 1, 2" in shown or "allowed_ids=[0, 1, 2" in shown
    assert len(shown) < 200


def test_settings_without_effect_are_said(make_debugger):
    assert "top_p has no effect" in make_debugger().configure("top_p=0.5")
    assert make_debugger().configure("top_p=0.5 temperature=1") == ""
    assert make_debugger().configure("") == ""


def test_save_and_load(make_debugger, step_llm, tmp_path):
    debugger = make_debugger(**HOT)
    run(debugger, 4)
    debugger.move(-2)
    debugger.choose(66)
    file = tmp_path / "one.session"
    assert make_view(make_debugger()).saved, "nothing would be lost"
    assert not prepared(debugger).saved
    assert debugger.save(str(file)) == "saved: one.session, 2 branches"
    assert prepared(debugger).saved
    again = Debugger(step_llm, step_llm.restore(file), debugger.parse, str(file))
    assert [each.tokens for each in again.branches] == [each.tokens for each in debugger.branches]
    assert again.current == 1 and prepared(again).saved
    for each in (debugger, again):
        each.step()
    assert again.generation.tokens == debugger.generation.tokens
    assert again.save(str(file)) == "saved: one.session, 2 branches", "its own file is replaced"
    other = make_debugger()
    with pytest.raises(UsageError, match="that file exists; give it again to replace it"):
        other.save(str(file))
    assert other.save(str(file), replace=True).startswith("saved")
    with pytest.raises(UsageError, match="no path"):
        other.save("  ")


def test_the_last_layer_is_the_model(make_debugger, step_llm):
    debugger = make_debugger()
    view = prepared(debugger)
    layers = make_layers(step_llm, list(view.ids), view.look.token)
    row = view.look.rows[0]
    assert layers.token == row.text and layers.rows[-1].rank == 0
    assert layers.rows[-1].probability == pytest.approx(row.probability, rel=1e-5)
    other = view.look.rows[5]
    last = make_layers(step_llm, list(view.ids), other.token_id).rows[-1]
    assert (last.top, last.rank) == (row.text, 5)
    assert last.top_probability == pytest.approx(row.probability, rel=1e-5)
    assert last.probability == pytest.approx(other.probability, rel=1e-5)
