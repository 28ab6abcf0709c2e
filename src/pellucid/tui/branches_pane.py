"""The tree of branches: where each left the one above it, how long it is, how it ends."""

from __future__ import annotations

from rich.text import Text

from pellucid.glass.words import cells
from pellucid.tui.style import FAINT, TITLE, visible
from pellucid.tui.view import BranchRow, View


def branches_lines(view: View, width: int, height: int) -> list[Text]:
    """The lines around the current branch."""
    rows = view.branches
    at = next((i for i, row in enumerate(rows) if row.current), 0)
    first = max(0, min(at - height // 2, len(rows) - height))
    return [_line(row, width) for row in rows[first : first + height]]


def _line(row: BranchRow, width: int) -> Text:
    head = "*" if row.current else " "
    head += "  " * min(row.depth, 6) + ("\u2514 " if row.depth else "") + f"{row.number} "
    if row.depth:
        head += f"@{row.forked_at} "
    head += f"[{row.num_tokens}] "
    text = Text(head, TITLE if row.current else "")
    tail = visible(row.tail)
    end = f" \u25a0{row.finish_reason}" if row.finish_reason else ""
    room = width - cells(head) - cells(end)
    if cells(tail) > room:
        while tail and cells(tail) > room - 1:
            tail = tail[1:]
        tail = "\u2026" + tail if room > 0 else ""
    text.append(tail)
    text.append(end, FAINT)
    text.truncate(width, overflow="ellipsis")
    return text
