"""The distribution at the cursor: for each token a bar, its probability, and after the arrow the one that it is drawn
with; the token that stands there, also where it is far down."""

from __future__ import annotations

from rich.text import Text

from pellucid.tui.style import FAINT, MARKED, NARROW, bar, fitted, level, named, percent, said
from pellucid.tui.view import Look, Row, View


def distribution_title(view: View) -> str:
    look = view.look
    if look is None:
        return "distribution"
    return f"position {look.position} \u00b7 entropy {look.entropy:.2f} nats"


def distribution_lines(view: View, width: int, height: int, selected: int) -> list[Text]:
    """Rows from which `selected` is one; `>` is what the settings choose, `*` what stands there."""
    look = view.look
    if look is None:
        return said("Nothing predicts the first token.", width, height)
    first = max(0, selected - height + 1)
    last: list[Text] = []
    stands = look.stands
    if stands is not None and height > 2 and not first <= stands.rank < min(first + height, len(look.rows)):
        last = [_line(look, stands, width, False)]
        first = max(0, selected - height + 2)
    rows = look.rows[first : first + height - len(last)]
    return [_line(look, row, width, row.rank == selected) for row in rows] + last


def _line(look: Look, row: Row, width: int, selected: bool) -> Text:
    chosen = look.choice is not None and look.choice.token_id == row.token_id
    stands = look.stands is not None and look.stands.token_id == row.token_id
    mark = ("*" if stands else " ") + (">" if chosen else " ")
    number = f"{row.rank + 1:>2}" if row.rank < 99 else "\u2026 "
    shown = named(row.text)
    style = MARKED if selected else level(row.probability)
    text = Text(f"{number}{mark}")
    if width < NARROW:
        return text.append(fitted(shown, max(1, width - 10)), style).append(percent(row.probability))
    after = (
        "" if row.processed is None else " \u2192" + (percent(row.processed) if row.processed else "   out")
    )
    room = width - 4 - 1 - 6 - len(after)
    name = min(16, max(8, room // 2))
    text.append(fitted(shown, name) + " ", style)
    text.append(bar(row.probability, room - name), level(row.probability))
    text.append(percent(row.probability))
    return text.append(after, "" if row.processed else FAINT)
