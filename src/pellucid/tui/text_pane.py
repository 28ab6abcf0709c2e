"""The text so far, each token in the colour of its probability, the cursor reversed."""

from __future__ import annotations

from rich.text import Text

from pellucid.glass.run import FORCED, GIVEN
from pellucid.glass.words import cells, cut
from pellucid.tui.style import MARKED, OWN, level, visible
from pellucid.tui.view import Cell, View


def text_lines(view: View, width: int, height: int) -> list[Text]:
    """The lines around the cursor, at most `height`, each at most `width` cells."""
    lines, line_of_cursor = _all_lines(view, width)
    first = max(0, min(line_of_cursor - height // 2, len(lines) - height))
    return lines[first : first + height]


def _all_lines(view: View, width: int) -> tuple[list[Text], int]:
    """All lines, and in which the cursor is. Only those near the cursor are of use; a long text is cut to these."""
    start = _start(view.cursor, width)
    stop = min(len(view.cells), view.cursor + 40 * 80)
    lines = [Text("\u2026" if start else "")]
    where = 0
    for position in range(start, stop):
        cell = view.cells[position]
        shown = cut(visible(cell.text), width) or "\u00b7"
        if cells(lines[-1].plain) + cells(shown) > width:
            lines.append(Text())
        if position == view.cursor:
            where = len(lines) - 1
        lines[-1].append(shown, style_of(cell, position == view.cursor))
        if "\n" in cell.text:
            lines.append(Text())
    if view.cursor == len(view.cells):
        if cells(lines[-1].plain) + 1 > width:
            lines.append(Text())
        lines[-1].append(" ", MARKED)
        where = len(lines) - 1
    return lines, where


def _start(cursor: int, width: int) -> int:
    """Where to begin drawing: a long text is not wrapped from its beginning for each key. A multiple of 256, so that
    lines stay where they are while the cursor moves."""
    return max(0, (cursor // 256 - max(1, 40 * width // 1024)) * 256)


def style_of(cell: Cell, cursor: bool) -> str:
    styles = [level(cell.probability)]
    if cell.kind in (FORCED, GIVEN):
        styles.append(OWN)
    if cursor:
        styles.append(MARKED)
    return " ".join(filter(None, styles))
