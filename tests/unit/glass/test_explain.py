"""The story told is what happened: against llm.logits, generate and the engine's own counts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pellucid.errors import UsageError
from pellucid.glass import explain as module
from pellucid.glass.explain import explain
from pellucid.glass.words import cells

PROMPT = "the quick brown fox"
SETTINGS = [{}, {"temperature": 1.3, "top_k": 50, "top_p": 0.9, "seed": 4}, {"temperature": 2.0, "seed": 1}]


def softmax(row):
    row = row.astype(np.float64)
    p = np.exp(row - row.max())
    return p / p.sum()


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "stages", "hot"])
def test_it_tells_what_generate_does(glass_llm, settings):
    told = explain(glass_llm, PROMPT, max_tokens=5, ignore_eos=True, **settings)
    result = glass_llm.generate(PROMPT, max_tokens=5, ignore_eos=True, **settings)
    assert [each.appended.token_id for each in told.passes] == result.token_ids
    assert told.passes[-1].finish_reason == "length" and told.passes[0].finish_reason is None
    assert told.passes[-1].text == PROMPT + result.text
    assert all(told.check.same) and len(told.check.same) == 5
    assert told.check.computed == len(told.prompt) + 4  # nothing reused
    assert [token.token_id for token in told.prompt] == glass_llm.tokenizer.encode(PROMPT)


def test_every_row_predicts_what_the_model_predicts(glass_llm):
    told = explain(glass_llm, PROMPT, max_tokens=4, ignore_eos=True, top=4, rows=1000)
    ids = [t.token_id for t in told.prompt] + [p.appended.token_id for p in told.passes]
    whole = glass_llm.logits(ids)
    rows = [row for each in told.passes for row in each.rows]
    assert [row.token.position for row in rows] == list(range(len(ids) - 1))
    for row in rows:
        at = row.token.position
        p = softmax(whole[at])
        order = np.lexsort((np.arange(len(p)), -whole[at]))
        assert [each.token_id for each in row.top] == order[:4].tolist()
        assert [each.rank for each in row.top] == [0, 1, 2, 3]
        np.testing.assert_allclose([each.probability for each in row.top], p[order[:4]], rtol=1e-9)
        assert row.entropy == pytest.approx(-(p * np.log(p)).sum(), rel=1e-9)
        if at + 1 < len(told.prompt):
            assert row.follows is not None and row.follows.token_id == ids[at + 1]
            assert order[row.follows.rank] == ids[at + 1]
        else:
            assert row.follows is None


def test_what_is_reused_and_computed(glass_llm):
    told = explain(glass_llm, PROMPT, max_tokens=3, ignore_eos=True)
    n = len(told.prompt)
    assert [(p.length, p.reused, p.computed) for p in told.passes] == [
        (n, 0, n),
        (n + 1, n, 1),
        (n + 2, n + 1, 1),
    ]
    again = explain(glass_llm, PROMPT, max_tokens=3, ignore_eos=True)
    assert (again.passes[0].reused, again.passes[0].computed) == (n - 1, 1), "the prefix cache had the rest"
    assert again.check.computed <= n + 2  # the salt of this check may have been seen
    assert [p.digest for p in again.passes] == [p.digest for p in told.passes]
    assert "Keys and values" in str(again) and f"{n - 1} positions are there" in str(again).replace(
        "\n  ", " "
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "stages", "hot"])
def test_the_last_layer_is_the_model(glass_llm, settings):
    told = explain(glass_llm, PROMPT, max_tokens=3, ignore_eos=True, **settings)
    for each in told.passes:
        last = each.layers[-1]
        assert [layer.name for layer in each.layers] == ["embed", *map(str, range(told.num_layers))]
        assert last.rank == each.choice.raw_rank and last.top_id == each.rows[-1].top[0].token_id
        assert last.probability == pytest.approx(np.exp(each.choice.raw_logprob), rel=1e-5)


@pytest.mark.parametrize(
    "ranks, said",
    [
        ((5, 1, 0, 1, 0, 0), "is first from layer 3 on"),
        ((0, 0, 0, 0, 0, 0), "is first from layer embed on"),
        ((3, 2, 1, 1, 1, 1), "is not the first of them at the end (rank 2)"),
    ],
)
def test_from_which_layer_on_the_token_is_first(glass_llm, ranks, said):
    told = explain(glass_llm, PROMPT, max_tokens=1, ignore_eos=True)
    names, tops = ("embed", "0", "1", "2", "3", "4"), "aabbcc"
    layers = tuple(
        module.LayerSeen(name, ord(top), top, 0.1, rank)
        for name, top, rank in zip(names, tops, ranks, strict=True)
    )
    story = " ".join(replace(told, passes=(replace(told.passes[0], layers=layers),)).lines(200))
    assert said in story
    assert 'first by layer: 1 "b"  3 "c"' in story, "where the most probable token changes"


def test_of_a_long_prompt_the_last_tokens_are_listed(glass_llm):
    told = explain(glass_llm, PROMPT * 5, max_tokens=1, rows=1)
    n, lines = len(told.prompt), told.lines(300)
    listed = [line.split()[:2] for line in lines[: lines.index("")] if line.strip()[:1].isdigit()][1:]
    assert listed == [[str(t.position), str(t.token_id)] for t in told.prompt[-40:]] and n > 40
    assert f"  ({n - 40} tokens before these are not listed)" in lines
    computed = next(line for line in lines if line.startswith("    computed"))
    assert f"({n - 12} before)   {n - 12} {told.prompt[-12].token_id} " in computed
    assert f"   {n - 1} {told.prompt[-1].token_id} " in computed


def test_only_the_last_rows_are_told(glass_llm):
    told = explain(glass_llm, PROMPT, max_tokens=1, rows=2)
    n = len(told.prompt)
    assert [row.token.position for row in told.passes[0].rows] == [n - 2, n - 1]
    assert f"({n - 2} rows before these are not told; --rows N)" in str(told)


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "stages", "hot"])
@pytest.mark.parametrize("width", [40, 46, 60, 80, 100, 160])
def test_lines_fit(glass_llm, settings, width):
    told = explain(glass_llm, PROMPT * 5, max_tokens=2, ignore_eos=True, **settings)
    lines = told.lines(width)
    assert max(cells(line) for line in lines) <= width
    assert all(line.isprintable() for line in lines)


def test_the_story_is_in_order(glass_llm):
    told = explain(glass_llm, PROMPT, max_tokens=2, ignore_eos=True, temperature=1.0, top_k=9, seed=2)
    text = str(told)
    marks = [
        "The text becomes tokens",
        "Turn 1",
        "Input:",
        "On the way up",
        "The choice of position",
        "top_k: 9 tokens left",
    ]
    marks += ["noise", "is appended", "Turn 2", "What it came to", "bit for bit"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_a_check_that_fails_is_said(glass_llm, monkeypatch):
    """The check compares with a pass of its own: another row of logits does not go through."""
    real = module._digest
    digests = iter(range(10**6))
    monkeypatch.setattr(
        module, "_digest", lambda row: f"{next(digests):016x}" if row.size > 300 else real(row)
    )
    told = explain(glass_llm, PROMPT, max_tokens=2, ignore_eos=True)
    assert told.check.same == (False, False)
    assert "ARE NOT ALL THE SAME" in str(told) and "DIFFERENT" in str(told)


def test_parts_of_a_character_are_told_as_bytes(glass_llm):
    """The tiny vocabulary spells these characters byte by byte; its own letters for bytes are no text."""
    told = explain(glass_llm, "a 日\u00a0", max_tokens=1, ignore_eos=True)
    texts = [token.text for token in told.prompt]
    at = texts.index("\\xe6")
    assert texts[at : at + 3] == ["\\xe6", "\\x97", "\\xa5"]
    assert 'comes "\\x97"' in str(told) and '"æ"' not in str(told)


def test_plain_data(glass_llm):
    told = explain(glass_llm, PROMPT, max_tokens=2, ignore_eos=True)
    data = json.loads(json.dumps(told.to_dict()))
    assert data["passes"][0]["computed"] == len(told.prompt)
    assert data["passes"][1]["rows"][0]["token"]["position"] == len(told.prompt)


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"top": 0}, {"rows": -1}, {"top": "x"}, {"rows": True}])
def test_numbers_out_of_range(glass_llm, wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: expected an int of at least 1"):
        explain(glass_llm, PROMPT, **wrong)
