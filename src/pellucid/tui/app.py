"""The debugger in a terminal. Draws views and turns keys into jobs; the model works on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event
from time import monotonic
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Label, Static

from pellucid.errors import PellucidError
from pellucid.tui.branches_pane import branches_lines
from pellucid.tui.debugger import Debugger
from pellucid.tui.distribution_pane import distribution_lines, distribution_title
from pellucid.tui.keys import DIGITS, KEYS, PRIORITY, bottom_line
from pellucid.tui.layers_pane import layers_lines
from pellucid.tui.looking import make_layers, make_view
from pellucid.tui.panes import HelpScreen, Pane
from pellucid.tui.probabilities import MOST_COLOURED
from pellucid.tui.stages_pane import stages_lines
from pellucid.tui.style import WARNING, legend
from pellucid.tui.text_pane import text_lines
from pellucid.tui.view import Layers, View

Job = Callable[[], str | None]
"""Runs on the model's thread; returns what to say of it."""
ZOOMS = ("", "distribution", "stages", "layers", "branches")
LAYERS_AFTER = 0.15  # seconds without a key before the layers are computed: they cost a pass
SHOWN_EVERY = 0.1  # seconds between two views of a run
LEAVE = "\0"  # no path
QUESTIONS = {"force": "force text: ", "settings": "settings: ", "save": "save to: "}


class StepApp(App[None]):
    """`error`: what no command may raise, for whoever ran the app to raise again."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None  # keys are the app's, but for those of a question
    TITLE = "pellucid step"
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #status { height: 1; text-style: reverse; }
    #message { height: 1; }
    #ask { height: 1; display: none; }
    #ask Label { width: auto; text-style: bold; }
    #ask Input { border: none; height: 1; padding: 0; width: 1fr; background: ansi_default; color: ansi_default; }
    Pane { border-top: solid ansi_bright_black; border-title-color: ansi_default; 
           border-subtitle-color: ansi_default; width: 1fr; height: 1fr; padding: 0; }
    #text { height: 7fr; }
    #middle { height: 9fr; }
    #bottom { height: 6fr; }
    #middle.large, #bottom.large { height: 21fr; }
    #stages, #branches { border-left: solid ansi_bright_black; }
    HelpScreen { align: center middle; background: ansi_default; }
    #help { width: auto; height: auto; max-height: 100%; overflow-y: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(name, key.action, show=False, priority=name in PRIORITY)
            for key in KEYS
            for name in key.names.split(",")
        ),
        *(Binding(digit, f"pick({digit})", show=False) for digit in DIGITS),
    ]

    class Shown(Message):
        """A view that the model's thread has made."""

        def __init__(self, view: View) -> None:
            super().__init__()
            self.view = view

    class Said(Message):
        """How far the model's thread is."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, debugger: Debugger) -> None:
        super().__init__(ansi_color=True)
        self.debugger = debugger
        self.error: BaseException | None = None
        self.view: View | None = None
        self.layers: Layers | None = None
        self.selected = 0
        self._asked = ""
        self._again = ""  # what was asked for once and refused: a path that exists, or LEAVE
        self._zoom = 0
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._layers_task: asyncio.Task[None] | None = None
        self._stop = Event()
        self._busy = ""
        self._message: tuple[str, str] = ("", "")  # text, style

    # --- the screen -----------------------------------------------------------------------------------
    def compose(self) -> ComposeResult:
        yield Static(id="status")
        yield Pane("text", lambda w, h: [] if self.view is None else text_lines(self.view, w, h))
        with Horizontal(id="middle"):
            yield Pane("distribution", self._draw_distribution)
            yield Pane("stages", lambda w, h: [] if self.view is None else stages_lines(self.view, w, h))
        with Horizontal(id="bottom"):
            yield Pane("layers", lambda w, h: layers_lines(self.layers, w, h))
            yield Pane("branches", lambda w, h: [] if self.view is None else branches_lines(self.view, w, h))
        with Vertical(id="foot"), Horizontal(id="ask"):
            yield Label(id="question")
            yield Input(id="answer", select_on_focus=False)
        yield Static(id="message")

    def on_mount(self) -> None:
        titles = {
            "text": f"text  {legend()}",
            "stages": "choice",
            "layers": "layers",
            "branches": "branches",
        }
        for name, title in titles.items():
            self.query_one(f"#{name}", Pane).border_title = title
        self.query_one("#foot").styles.height = "auto"
        self._worker = asyncio.create_task(self._work())
        self._do(lambda: None)

    def on_unmount(self) -> None:
        self._stop.set()
        self._worker.cancel()
        if self._layers_task is not None:
            self._layers_task.cancel()

    def on_resize(self) -> None:
        self._refresh()

    def _draw_distribution(self, width: int, height: int) -> list[Text]:
        return [] if self.view is None else distribution_lines(self.view, width, height, self.selected)

    def _refresh(self) -> None:
        for pane in self.query(Pane):
            pane.refresh()
        if self.view is not None:
            self.query_one("#distribution", Pane).border_title = distribution_title(self.view)
        self.query_one("#status", Static).update(Text(self._status(), no_wrap=True, overflow="ellipsis"))
        said, style = self._message
        self.query_one("#message", Static).update(
            Text(said or bottom_line(self.size.width), style, no_wrap=True, overflow="ellipsis")
        )

    def _status(self) -> str:
        busy = f"[{self._busy}] " if self._busy else ""
        view = self.view
        if view is None:
            return f" {busy}{self.debugger.name}"
        ends = "" if view.finish_reason is None else f" \u00b7 ended: {view.finish_reason}"
        hidden = f" \u00b7 {view.uncoloured:,} uncoloured (c)" if view.uncoloured else ""
        saved = "" if view.saved else " \u00b7 not saved"
        return (
            f" {busy}{view.cursor} of {len(view.cells)} tokens{ends}{saved} \u00b7 {view.settings}{hidden} \u00b7 "
            f"{view.computed:,} computed, {view.reused:,} reused \u00b7 {view.model}"
        )

    # --- the model's thread ---------------------------------------------------------------------------
    def _do(self, job: Job, busy: str = "computing") -> None:
        """Queues it. A run that goes on is stopped for it."""
        self._stop.set()
        self._again = ""
        self._busy = busy
        self._jobs.put_nowait(job)

    async def _work(self) -> None:
        try:
            while True:
                job = await self._jobs.get()
                self._stop.clear()
                try:
                    await asyncio.to_thread(self._run_job, job)
                finally:
                    self._jobs.task_done()
        except Exception as error:  # a bug: told by whoever runs the app, on a screen that is whole again
            self.error = error
            self.exit()

    def _run_job(self, job: Job) -> None:
        try:
            said = (job() or "", "")
        except PellucidError as error:
            said = (str(error), WARNING)
        try:
            self._prepare(MOST_COLOURED)
            view = make_view(self.debugger)
        except PellucidError as error:
            self.post_message(self.Said(str(error)))
            return
        self._message = said
        self._busy = "" if self._jobs.empty() else self._busy
        self.post_message(self.Shown(view))

    def _prepare(self, most: int | None) -> None:
        for done, of in self.debugger.prepare(most):
            if self._stop.is_set() and not self.is_running:
                return
            if of - done > 128:
                self.post_message(self.Said(f"{done:,} of {of:,} positions computed"))

    def on_step_app_said(self, event: Said) -> None:
        self._message = (event.text, "")
        self._refresh()

    def on_step_app_shown(self, event: Shown) -> None:
        self.view = event.view
        look = event.view.look
        best = 0
        if look is not None:
            wanted = look.token
            best = next((row.rank for row in look.rows if row.token_id == wanted), 0)
        self.selected = best
        self.layers = None
        self._refresh()
        self._look_at_layers(event.view)

    def _look_at_layers(self, view: View) -> None:
        if self._layers_task is not None:
            self._layers_task.cancel()
        if view.look is None:
            self.layers = Layers("", (), "Nothing predicts the first token.")
            return
        self._layers_task = asyncio.create_task(self._compute_layers(view, list(view.ids), view.look.token))

    async def _compute_layers(self, view: View, ids: list[int], token: int) -> None:
        await asyncio.sleep(LAYERS_AFTER)
        try:
            found = await asyncio.to_thread(make_layers, self.debugger.llm, ids, token)
        except PellucidError as error:
            found = Layers("", (), str(error))
        except Exception as error:
            self.error = error
            self.exit()
            return
        if self.view is view:
            self.layers = found
            self.query_one("#layers", Pane).refresh()

    # --- keys -----------------------------------------------------------------------------------------
    def action_step(self) -> None:
        self._do(self.debugger.step)

    def action_run(self) -> None:
        self._do(self._run, "running, Esc stops")

    def _run(self) -> str:
        shown = monotonic()

        def on_token() -> None:
            nonlocal shown
            if monotonic() - shown >= SHOWN_EVERY:
                self.post_message(self.Shown(make_view(self.debugger)))
                shown = monotonic()

        return self.debugger.run(self._stop, on_token)

    def action_take_back(self) -> None:
        self._do(self.debugger.back)

    def action_move(self, by: int) -> None:
        self._do(lambda: self.debugger.move(by))

    def action_select(self, by: int) -> None:
        if self.view is not None and self.view.look is not None:
            self.selected = min(max(self.selected + by, 0), len(self.view.look.rows) - 1)
            self._refresh()

    def action_choose(self) -> None:
        """The token that is seen."""
        if self.view is not None and self.view.look is not None:
            token = self.view.look.rows[self.selected].token_id
            self._do(lambda: self.debugger.choose(token))

    def action_pick(self, number: int) -> None:
        """The token of that rank when the key's turn comes: keys may be typed faster than passes are computed."""
        self._do(lambda: self.debugger.choose_rank(number - 1))

    def action_fork(self) -> None:
        self._do(self.debugger.fork)

    def action_switch(self, by: int) -> None:
        if not self._asked:
            self._do(lambda: self.debugger.switch(by))

    def action_drop(self) -> None:
        self._do(self.debugger.drop)

    def action_warm(self, by: float) -> None:
        self._do(lambda: self.debugger.warm(by))

    def action_colour(self) -> None:
        self._do(lambda: self._prepare(None))

    def action_zoom(self) -> None:
        self._zoom = (self._zoom + 1) % len(ZOOMS)
        large = ZOOMS[self._zoom]
        for row in ("middle", "bottom"):
            panes = list(self.query_one(f"#{row}").query(Pane))
            for pane in panes:
                pane.display = large in ("", pane.id)
            self.query_one(f"#{row}").display = any(pane.display for pane in panes)
            self.query_one(f"#{row}").set_class(bool(large), "large")
        self.call_after_refresh(self._refresh)

    def action_stop(self) -> None:
        self._stop.set()
        self._close_question()
        self._message = ("", "")
        self._again = ""
        self._refresh()

    def action_help(self) -> None:
        self.push_screen(HelpScreen())

    def action_leave(self) -> None:
        view = self.view
        if view is not None and not view.saved and len(view.branches) > 1 and self._again != LEAVE:
            self._again = LEAVE
            self._message = ("the branches are not saved: w saves them, q again leaves", WARNING)
            self._refresh()
            return
        self._stop.set()
        self.exit()

    # --- questions ------------------------------------------------------------------------------------
    def action_ask(self, what: str) -> None:
        self._asked = what
        self.query_one("#question", Label).update(QUESTIONS[what])
        answer = self.query_one("#answer", Input)
        answer.value = (self.debugger.path or "step.session") if what == "save" else ""
        answer.cursor_position = len(answer.value)
        self.query_one("#ask").styles.display = "block"
        self.query_one("#message").styles.display = "none"
        answer.focus()

    def _close_question(self) -> None:
        self._asked = ""
        self.query_one("#ask").styles.display = "none"
        self.query_one("#message").styles.display = "block"
        self.set_focus(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        what, text, debugger = self._asked, event.value, self.debugger
        again = self._again
        self._close_question()
        if what == "force":
            self._do(lambda: debugger.force(text.replace("\\n", "\n")))
        elif what == "settings":
            self._do(lambda: debugger.configure(text))
        elif what == "save":
            self._do(lambda: debugger.save(text, replace=again == text))
            self._again = text
