"""`pellucid step` through Textual's own pilot: keys in, the screen out. No test here waits for a time."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("textual", reason="textual (extra tui) is not installed")

from screen import screen_of

from pellucid.glass.words import cells
from pellucid.tui import app as module
from pellucid.tui.app import StepApp
from pellucid.tui.branches_pane import branches_lines
from pellucid.tui.debugger import Debugger
from pellucid.tui.distribution_pane import distribution_lines
from pellucid.tui.stages_pane import stages_lines
from pellucid.tui.style import level
from pellucid.tui.text_pane import text_lines

SNAPSHOTS = Path(__file__).parent / "snapshots"
HOT = {"temperature": 1.2, "top_k": 30, "top_p": 0.95, "seed": 3}


async def settle(app, pilot, layers=False):
    """Until every key's job is done and drawn."""
    await pilot.pause()
    await app._jobs.join()
    for _ in range(
        3
    ):  # what a message leads to: other messages, a layout; `pause` looks at how busy the process is
        await pilot._wait_for_screen()
    await pilot.pause()
    if layers and app._layers_task is not None:
        await app._layers_task
        await pilot.pause()
    if app.error is not None:
        raise app.error


def drive(debugger, play, size=(80, 24)):
    """Runs play(app, press) in the app; press(keys...) presses them one by one and waits for each."""

    async def main():
        app = StepApp(debugger)
        async with app.run_test(size=size) as pilot:
            pilot._wait_for_screen = partial(
                pilot._wait_for_screen, timeout=600.0
            )  # its own 30 s may be too few
            await settle(app, pilot)

            async def press(*keys, layers=False):
                for key in keys:
                    await pilot.press(key)
                    await settle(app, pilot)
                await settle(app, pilot, layers)

            await play(app, press)
        if app.error is not None:
            raise app.error
        return app

    return asyncio.run(main())


def write(text):
    """The keys that type it."""
    names = {
        " ": "space",
        "=": "equals_sign",
        "_": "underscore",
        ".": "full_stop",
        "/": "slash",
        "-": "minus",
    }
    return [names.get(c, c) for c in text]


# --- keys -----------------------------------------------------------------------------------------------
def test_step_back_and_force(make_debugger, step_llm):
    debugger = make_debugger(**HOT)
    want = step_llm.generate("the quick brown fox", max_tokens=3, ignore_eos=True, **HOT).token_ids

    async def play(app, press):
        await press("s", "space", "s")
        assert debugger.generation.tokens == want
        await press("b", "backspace")
        assert debugger.generation.tokens == want[:1]
        await press("f", *write(" zebra"), "enter")
        assert debugger.generation.text.endswith(" zebra")
        assert "forced" in screen_of(app).lines[-1]
        await press("s")
        assert screen_of(app).lines[-1].startswith("? help"), "a message stays until the next key"

    drive(debugger, play)


def test_choose_by_row_and_by_number(make_debugger):
    debugger = make_debugger()

    async def play(app, press):
        third = app.view.look.rows[2].token_id
        assert app.selected == 0
        await press("down", "down", "down", "up", "enter")
        assert debugger.generation.tokens == [third]
        fifth = app.view.look.rows[4].token_id
        await press("5")
        assert debugger.generation.tokens == [third, fifth]

    drive(debugger, play)


def test_the_token_that_stands_is_selected(make_debugger):
    async def play(app, press):
        await press("down", "down", "enter", "left")
        assert app.view.look.stands.rank == app.selected == 2

    drive(make_debugger(), play)


def test_a_forced_text_may_have_lines(make_debugger):
    debugger = make_debugger()

    async def play(app, press):
        await press("f")
        app.query_one("#answer").value = " a\\nb"
        await press("enter")
        assert debugger.generation.text.endswith(" a\nb")

    drive(debugger, play)


def test_the_head_of_a_long_prompt_is_coloured_by_a_key(step_llm, monkeypatch):
    monkeypatch.setattr(module, "MOST_COLOURED", 5)
    debugger = Debugger(
        step_llm, step_llm.begin("the quick brown fox", ignore_eos=True), lambda name, value: value
    )

    async def play(app, press):
        assert app.view.uncoloured == len(app.view.cells) - 6 > 0
        assert f"{app.view.uncoloured} uncoloured (c)" in screen_of(app).lines[0]
        await press("c")
        assert app.view.uncoloured == 0 and "uncoloured" not in screen_of(app).lines[0]

    drive(debugger, play, (160, 24))


def test_keys_typed_ahead_act_in_order(make_debugger, step_llm):
    """As if each had been waited for, also where a digit comes before the distribution that it is about is seen."""
    debugger, slow = make_debugger(**HOT), make_debugger(**HOT)

    async def play(app, press):
        for action in (app.action_step, lambda: app.action_pick(3), app.action_step, app.action_take_back):
            action()
        app.action_pick(2)
        await press("plus")

    drive(debugger, play)
    slow.step()
    slow.choose_rank(2)
    slow.choose_rank(1)
    assert debugger.generation.tokens == slow.generation.tokens
    assert debugger.generation.params.temperature == pytest.approx(1.3)


def test_ctrl_c_leaves_also_amid_a_question(make_debugger):
    async def play(app, press):
        await press("f", *write("abc"))
        await press("ctrl+c")

    assert drive(make_debugger(), play)._exit


def test_cursor_branch_and_switch(make_debugger):
    debugger = make_debugger()

    async def play(app, press):
        await press("s", "s", "s", "s")
        first = debugger.generation.tokens
        await press("left", "left")
        assert app.view.cursor == len(app.view.cells) - 2 and app.view.look.stands.token_id == first[2]
        await press("2" if app.view.look.stands.rank != 1 else "1")
        assert debugger.generation.tokens[:2] == first[:2] and debugger.generation.tokens[2] != first[2]
        assert debugger.branches[0].tokens == first and app.view.branches[1].current
        await press("left_square_bracket")
        assert app.view.branches[0].current
        await press("tab")
        assert app.view.branches[1].current
        await press("n", "s", "x")
        assert len(app.view.branches) == 2
        await press("home")
        assert app.view.cursor == 0 and "Nothing predicts" in str(screen_of(app))
        await press("end")
        assert app.view.cursor == len(app.view.cells)

    drive(debugger, play)


def test_settings_show_at_once(make_debugger):
    debugger = make_debugger()

    async def play(app, press):
        assert "no stage acts" in str(screen_of(app))
        await press("p", *write("temperature=0.7 top_k=3 seed=5"), "enter")
        text = str(screen_of(app))
        assert (
            "top_k" in text and "      3 left" in text and "temperature=0.7 seed=5" in screen_of(app).lines[0]
        )
        assert text.count("out") >= 3
        await press("plus")
        assert "temperature=0.8" in screen_of(app).lines[0]
        await press("minus", "minus")
        assert "temperature=0.6" in screen_of(app).lines[0]

    drive(debugger, play)


def test_errors_are_one_red_line_and_change_nothing(make_debugger):
    debugger = make_debugger(max_tokens=1)

    async def play(app, press):
        await press("s", "s")
        screen = screen_of(app)
        assert screen.lines[-1].startswith("the generation has ended (length)")
        assert "bold" in screen.style_at(23, 0)
        await press("p", *write("tempo=1"), "enter")
        assert screen_of(app).lines[-1].startswith("no sampling parameter 'tempo'")
        await press("x")
        assert screen_of(app).lines[-1] == "the only branch stays"
        assert len(debugger.generation.tokens) == 1

    drive(debugger, play)


def test_a_question_can_be_left(make_debugger):
    debugger = make_debugger()

    async def play(app, press):
        await press("f", *write("abc"), "escape")
        assert app.focused is None and debugger.generation.tokens == []
        await press("s")
        assert len(debugger.generation.tokens) == 1

    drive(debugger, play)


def test_save_asks_before_it_replaces(make_debugger, step_llm, tmp_path):
    debugger, other = make_debugger(), make_debugger("another text")
    file = tmp_path / "a.session"
    other.generation.save(file)

    async def play(app, press):
        await press("s", "n")
        for _ in range(2):
            await press("w")
            app.query_one("#answer").value = str(file)
            await press("enter")
            if step_llm.restore(file).token_array.tolist() == other.generation.token_array.tolist():
                assert "that file exists; give it again to replace it" in screen_of(app).lines[-1]
        assert screen_of(app).lines[-1] == "saved: a.session, 2 branches"

    drive(debugger, play)
    assert step_llm.restore(file).token_array.tolist() == debugger.generation.token_array.tolist()


def at_step(number, debugger, app, action):
    """The action comes amid this step of a run, as that of a key would, and the step waits until the run is told."""
    loop, real, count = asyncio.get_running_loop(), debugger.generation.step, 0

    def step():  # on the model's thread
        nonlocal count
        count += 1
        if count == number:
            loop.call_soon_threadsafe(action)
            assert app._stop.wait(600)
        return real()

    debugger.generation.step = step


def test_run_is_stopped_by_escape(make_debugger):
    """The run would go on to the end of the context: the key comes while it does, and ends it."""
    debugger = make_debugger()

    async def play(app, press):
        at_step(5, debugger, app, app.action_stop)
        await press("r")
        assert len(debugger.generation.tokens) == 5
        assert screen_of(app).lines[-1] == "5 tokens, stopped"
        assert not screen_of(app).lines[0].startswith(" [")

    drive(debugger, play)


def test_a_key_amid_a_run_stops_it_and_acts(make_debugger):
    debugger = make_debugger()

    async def play(app, press):
        at_step(5, debugger, app, app.action_take_back)
        await press("r")
        assert len(debugger.generation.tokens) == 4

    drive(debugger, play)


def test_run_to_the_end_shows_what_it_was(make_debugger):
    debugger = make_debugger(max_tokens=7)

    async def play(app, press):
        await press("r")
        screen = screen_of(app)
        assert screen.lines[-1] == "7 tokens, then the end: length" and "ended: length" in screen.lines[0]
        assert "\u25a0length" in str(screen)

    drive(debugger, play)


def test_help_and_any_key(make_debugger):
    async def play(app, press):
        await press("question_mark")
        assert "steps until the text ends" in str(screen_of(app))
        await press("s")
        assert "steps until the text ends" not in str(screen_of(app))
        assert app.debugger.generation.tokens == [], "the key only closed the page"

    drive(make_debugger(), play)


def test_views_in_turn(make_debugger):
    async def play(app, press):
        titles = [" choice", "layers", "branches"]
        for shown in ([], ["choice"], ["layers"], ["branches"], ["choice", "layers", "branches"]):
            await press("v")
            text = str(screen_of(app))
            assert [title for title in titles if f"{title.strip()}\u2500" in text] == [
                title for title in titles if title.strip() in shown
            ]

    drive(make_debugger(), play)


def test_leaving(make_debugger):
    debugger = make_debugger()

    async def play(app, press):
        await press("s", "n")
        await press("q")
        assert "not saved" in screen_of(app).lines[-1] and app.is_running
        await press("s", "q")
        assert "not saved" in screen_of(app).lines[-1], "another key came between"
        app.action_leave()

    assert drive(debugger, play)._exit


def test_a_bug_ends_the_app_with_its_error(make_debugger, monkeypatch):
    debugger = make_debugger()

    async def play(app, press):
        monkeypatch.setattr(module, "make_view", lambda debugger: 1 / 0)
        await press("s")

    with pytest.raises(ZeroDivisionError):
        drive(debugger, play)


def test_the_layers_come_after_the_view(make_debugger):
    debugger = make_debugger()

    async def play(app, press):
        await press("s", layers=True)
        assert app.layers is not None
        chosen = app.view.look.token
        text = next(row.text for row in app.view.look.rows if row.token_id == chosen)
        assert app.layers.token == text and app.layers.rows[-1].rank == 0
        assert "first from layer" in str(screen_of(app))

    drive(debugger, play)


# --- the screen -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(80, 24), (100, 40), (60, 18), (40, 12), (20, 6), (8, 3)], ids=str)
def test_every_pane_draws_its_lines_where_it_is(make_debugger, size):
    """What is on the screen is what the panes' functions give for their size, at any size of the terminal."""
    debugger = make_debugger("the quick\nbrown fox jumps", **HOT)

    async def play(app, press):
        await press("s", "s", "s", "left", "n", "s")
        screen = screen_of(app)
        draws = {
            "text": lambda w, h: text_lines(app.view, w, h),
            "distribution": lambda w, h: distribution_lines(app.view, w, h, app.selected),
            "stages": lambda w, h: stages_lines(app.view, w, h),
            "branches": lambda w, h: branches_lines(app.view, w, h),
        }
        compared = 0
        for name, draw in draws.items():
            region = app.query_one(f"#{name}").content_region
            for i, line in enumerate(draw(region.width, region.height) if region.area else []):
                y = region.y + i
                if y < size[1] - 1 and i < region.height and cells(line.plain) == len(line.plain):
                    shown = screen.lines[y].ljust(size[0])[region.x : region.x + region.width]
                    assert shown.rstrip() == line.plain[: region.width].rstrip(), name
                    compared += 1
        assert compared >= (8 if size[1] >= 12 else 0)
        assert max(map(len, screen.lines)) <= size[0] and len(screen.lines) == size[1]

    drive(debugger, play, size)


def test_tokens_have_the_colour_of_their_probability(make_debugger):
    debugger = make_debugger(**HOT)

    async def play(app, press):
        await press("s", "s", "s", "s")
        app.view = replace(
            app.view,
            cells=tuple(replace(c, text=f"<{i:02}>", kind="drawn") for i, c in enumerate(app.view.cells)),
        )
        app._refresh()
        await press("up")
        screen = screen_of(app)
        by_level = {}
        for i, cell in enumerate(app.view.cells):
            line = screen.find(f"<{i:02}>")
            colour = re.search(r"fill: (#\w+)", screen.style_at(line, screen.lines[line].index(f"<{i:02}>")))
            by_level.setdefault(level(cell.probability), set()).add(colour and colour[1])
        assert all(len(colours) == 1 for colours in by_level.values())
        assert len({next(iter(colours)) for colours in by_level.values()}) == len(by_level) >= 3

    drive(debugger, play)


def structure(shown):
    """The words of each line: lines that a version of Textual draws between panes, and gaps, do not count."""
    return [re.sub("[ \u2500\u2502\u250c]+", " ", line).strip() for line in shown.splitlines()]


@pytest.mark.parametrize("name, size", [("80x24", (80, 24)), ("100x30", (100, 30)), ("40x12", (40, 12))])
def test_snapshot(make_debugger, name, size):
    """The whole screen as text, from a model whose bits are the same everywhere. PELLUCID_SNAPSHOTS=write makes the
    files anew; look at them before they are committed."""
    debugger = make_debugger("the quick brown fox", **HOT)

    async def play(app, press):
        await press("s", "s", "s", "left", "2", "s", layers=True)
        shown = str(screen_of(app)) + "\n"
        file = SNAPSHOTS / f"{name}.txt"
        if os.environ.get("PELLUCID_SNAPSHOTS") == "write":
            file.parent.mkdir(exist_ok=True)
            file.write_text(shown, encoding="utf-8")
        assert structure(shown) == structure(file.read_text(encoding="utf-8"))

    drive(debugger, play, size)
