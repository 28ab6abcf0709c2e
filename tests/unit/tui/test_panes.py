"""What panes draw: lines that fit at every size, and that say what the view says."""

from __future__ import annotations

import re
from dataclasses import replace
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.glass.words import cells
from pellucid.tui.branches_pane import branches_lines
from pellucid.tui.distribution_pane import distribution_lines, distribution_title
from pellucid.tui.keys import KEYS, bottom_line, help_lines
from pellucid.tui.layers_pane import layers_lines
from pellucid.tui.looking import make_view
from pellucid.tui.stages_pane import stages_lines
from pellucid.tui.style import LEVELS, bar, fitted, legend, level, percent, visible
from pellucid.tui.text_pane import text_lines
from pellucid.tui.view import LayerRow, Layers

SIZES = [(w, h) for w in (12, 20, 38, 39, 80, 200) for h in (1, 2, 3, 6, 9, 40)]


@pytest.fixture
def views(make_debugger):
    """Views of many kinds: at the end, in the middle, in the prompt, at the first token, with all stages, ended."""
    found = []

    def look(debugger):
        for _ in debugger.prepare():
            pass
        found.append(make_view(debugger))

    debugger = make_debugger(
        "the quick\nbrown fox 日本 \x1b[31m", temperature=1.1, top_p=0.9, min_p=0.01, seed=2
    )
    look(debugger)
    debugger.run(Event(), lambda: None) if debugger.generation.params.max_tokens else None
    for _ in range(30):
        debugger.step()
    look(debugger)
    debugger.move(-12)
    debugger.configure(
        "repetition_penalty=1.5 presence_penalty=1 top_k=20 frequency_penalty=0.3 typical_p=0.9"
    )
    look(debugger)
    debugger.choose(200)
    debugger.fork()
    look(debugger)
    debugger.move(-34)
    look(debugger)
    debugger.move(-1000)
    look(debugger)
    debugger.move(1000)
    debugger.configure("max_tokens=1")
    look(debugger)
    debugger.configure("max_tokens=none allowed_ids=5 bad_words_ids=5")
    look(debugger)
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_lines_fit_at_every_size(views, size):
    width, height = size
    layers = Layers(
        "fox", tuple(LayerRow(str(i), "日本語の" if i % 3 else "a", 0.3, i / 40, 40 - i) for i in range(41))
    )
    for view in views:
        drawn = {
            "text": text_lines(view, width, height),
            "distribution": distribution_lines(view, width, height, 3),
            "stages": stages_lines(view, width, height),
            "branches": branches_lines(view, width, height),
            "layers": layers_lines(layers, width, height),
        }
        for name, lines in drawn.items():
            assert len(lines) <= max(height, 1), name
            if width >= 20 or name == "text":
                assert all(cells(line.plain) <= width for line in lines), (
                    name,
                    [line.plain for line in lines],
                )
            assert all(line.plain.isprintable() for line in lines), (name, lines)


def test_all_the_text_is_there_in_its_colours(views):
    for view in views:
        lines = text_lines(view, 60, 1000)
        shown = "".join(line.plain for line in lines)
        want = "".join(visible(cell.text) or "\u00b7" for cell in view.cells)
        assert shown.rstrip(" ") == want.rstrip(" ") or shown == want + " "
        styles = [str(span.style) for line in lines for span in line.spans]
        assert sum("reverse" in style for style in styles) == 1
        styled = [
            cell
            for at, cell in enumerate(view.cells)
            if cell.probability is not None or cell.kind in ("forced", "given") or at == view.cursor
        ]
        for cell, style in zip(styled, styles, strict=False):
            assert style.startswith(level(cell.probability))
            assert ("underline" in style) == (cell.kind in ("forced", "given"))


def test_a_line_of_the_text_ends_where_it_ends(views):
    lines = [line.plain for line in text_lines(views[0], 60, 50)]
    assert lines[0].endswith("the quick\u21b5") and lines[1].startswith("brown fox")


@pytest.mark.parametrize("height", [1, 2, 5, 9])
def test_the_cursor_is_in_sight(views, height):
    for view in views:
        lines = text_lines(view, 20, height)
        assert any("reverse" in str(span.style) for line in lines for span in line.spans)


def test_a_text_of_thousands_of_tokens_is_cut_around_the_cursor(views):
    view = replace(views[1], cells=views[1].cells * 300, cursor=6000)
    lines = text_lines(view, 80, 7)
    assert len(lines) == 7 and any("reverse" in str(span.style) for line in lines for span in line.spans)


def test_the_distribution_shows_the_choice_and_what_stands(views):
    ended = views[1]
    lines = distribution_lines(ended, 60, 12, 0)
    marked = [line.plain for line in lines if line.plain[3] == ">"]
    assert len(marked) <= 1
    chosen = next((row.rank for row in ended.look.rows if row.token_id == ended.look.choice.token_id), 99)
    assert (chosen < 12) == bool(marked)
    middle = views[2]
    lines = distribution_lines(middle, 60, 12, 0)
    assert sum(line.plain[2] == "*" for line in lines) == 1, "what stands is always among them"
    assert distribution_title(middle).startswith(f"position {middle.cursor} ")
    assert all("\u2192" in line.plain for line in lines)
    in_prompt = views[4]
    assert not any("\u2192" in line.plain for line in distribution_lines(in_prompt, 60, 12, 0))


def test_the_selected_row_is_in_sight(views):
    for selected in (0, 5, 39):
        for height in (3, 8):
            lines = distribution_lines(views[2], 60, height, selected)
            rows = [line for line in lines if any("reverse" in str(span.style) for span in line.spans)]
            assert len(rows) == 1 and rows[0].plain.startswith(f"{selected + 1:>2}")


def test_the_stages_and_the_sum(views):
    text = "\n".join(line.plain for line in stages_lines(views[2], 80, 40))
    for name in ("repetition_pe", "presence_penal", "temperature", "top_k", "top_p", "min_p"):
        assert name[:13] in text
    logit, sign, noise, total = re.search(r"logit (\S+) (\S) noise (\S+) = (\S+)", text).groups()
    assert float(total) == pytest.approx(
        float(logit) + (-1 if sign == "\u2212" else 1) * float(noise), abs=0.002
    )
    short = [line.plain for line in stages_lines(views[2], 80, 6)]
    assert len(short) == 6 and short[0].endswith("lines more: key v")
    whole = [line.plain for line in stages_lines(views[2], 80, 40)]
    for height in range(2, len(whole)):
        short = [line.plain for line in stages_lines(views[2], 80, height)]
        assert any(line.startswith("> ") for line in short), "the choice is always there"
        assert short[0] == f"\u2026 {len(whole) - height + 1} lines more: key v" and len(short) == height
        assert set(short[1:]) <= set(whole)


def test_a_stage_that_puts_another_first_and_a_choice_that_is_not_first_say_so(views):
    look = views[2].look
    other = look.rows[5].token_id
    first = replace(look.choice.stages[0], top=other)
    choice = replace(look.choice, stages=(first, replace(first, name="same")), raw_rank=1234)
    view = replace(views[2], look=replace(look, choice=choice, names={**look.names, other: "zz"}))
    lines = [line.plain for line in stages_lines(view, 120, 40)]
    assert ["1st 'zz'" in line for line in lines[1:3]] == [True, False]
    assert " (rank 1,235)" in lines[3]


def test_what_cannot_be_chosen_is_said(views):
    assert any("no token is left" in line.plain for line in stages_lines(views[-1], 80, 9))
    assert any("token of the prompt" in line.plain for line in stages_lines(views[4], 80, 9))
    assert stages_lines(views[5], 80, 9) == []
    assert "Nothing predicts" in distribution_lines(views[5], 80, 9, 0)[0].plain


def test_branches(views):
    lines = [line.plain for line in branches_lines(views[3], 60, 9)]
    assert [line[0] for line in lines] == [" ", " ", "*"]
    assert lines[1].startswith("   \u2514 2 @") and lines[2].startswith("*    \u2514 3 @")


def test_layers():
    rows = tuple(LayerRow(str(i), "a" if i < 6 else "fox", 0.5, i / 10, 3 if i < 6 else 0) for i in range(9))
    lines = [line.plain for line in layers_lines(Layers("fox", rows), 40, 20)]
    assert lines[0] == "'fox': first from layer 6 on" and len(lines) == 10
    assert lines[1].startswith("    8 fox") and lines[1].endswith(" 80.0%")
    lines = [line.plain for line in layers_lines(Layers("fox", rows), 40, 4)]
    assert len(lines[1]) == 9 and lines[2].startswith("    8 fox") and lines[3].startswith("    6 fox")
    late = (*rows, LayerRow("9", "b", 0.9, 0.01, 7))
    assert layers_lines(Layers("fox", late), 40, 4)[0].plain == "'fox': rank 8 at the end"
    assert layers_lines(None, 40, 4)[0].plain == "\u2026"
    assert layers_lines(Layers("", (), "why not"), 40, 4)[0].plain == "why not"


# --- style ----------------------------------------------------------------------------------------------
def test_levels():
    assert [level(p) for p in (1.0, 0.5, 0.49, 0.1, 0.01, 0.0099, 0.0)] == [
        LEVELS[i][1] for i in (0, 0, 1, 1, 2, 3, 3)
    ]
    assert level(None) == ""
    assert legend().count("ansi_") == len(LEVELS)


@given(st.floats(0, 1), st.integers(1, 60))
def test_bar(fraction, width):
    drawn = bar(fraction, width)
    assert cells(drawn) == width
    eighths = sum(8 if c == "\u2588" else 0x2590 - ord(c) for c in drawn if c != " ")
    assert abs(eighths / 8 - fraction * width) <= 1 / 8
    assert (eighths > 0) == (fraction > 0)


@given(st.floats(0, 1))
def test_percent_has_six_cells(p):
    assert len(percent(p)) == 6
    assert (percent(p) == "  100%") == (p == 1)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.integers(1, 30))
def test_visible_and_fitted(text, width):
    shown = visible(text)
    assert shown.isprintable() and len(shown) == len(text)
    assert cells(fitted(shown, width)) == width


# --- keys -----------------------------------------------------------------------------------------------
def test_no_key_has_two_meanings():
    names = [name for key in KEYS for name in key.names.split(",")]
    assert len(names) == len(set(names)) and not set(names) & set("123456789")


@pytest.mark.parametrize("width", [10, 20, 40, 79, 80, 200])
def test_the_bottom_line_and_the_help_fit(width):
    assert cells(bottom_line(width)) <= width
    if width >= 40:
        assert bottom_line(width).startswith("? help")
    if width >= 40:
        assert all(cells(line) <= width for line in help_lines(width))


def test_the_help_fits_a_small_terminal():
    assert len(help_lines(78)) <= 24
    text = "\n".join(help_lines(78))
    assert all(key.shown in text for key in KEYS if key.shown)
