"""Textual widgets: a pane that draws lines for the size that it has, and the page of keys."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual.app import ComposeResult
from textual.events import Key
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from pellucid.tui.keys import help_lines

Draw = Callable[[int, int], list[Text]]
"""Lines for a (width, height) in cells."""


class Pane(Widget):
    """Draws what `draw` gives for its size. What does not fit is for `draw` to leave out."""

    def __init__(self, name: str, draw: Draw) -> None:
        super().__init__(id=name)
        self.draw = draw

    def render(self) -> Text:
        width, height = self.content_size
        if width < 1 or height < 1:
            return Text("")
        joined = Text("\n").join(self.draw(width, height)[:height])
        joined.no_wrap, joined.overflow = True, "crop"
        return joined


class HelpScreen(ModalScreen[None]):
    """The keys; any key closes it."""

    def compose(self) -> ComposeResult:
        width = max(20, min(78, self.app.size.width - 2))
        yield Static(Text("\n".join(help_lines(width))), id="help")

    def on_key(self, event: Key) -> None:
        if event.key not in ("up", "down", "pageup", "pagedown"):
            event.stop()
            self.dismiss(None)
