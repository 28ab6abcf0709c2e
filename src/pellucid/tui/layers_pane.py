"""Through the layers: what each would predict, were it the last, and how probable the token looked at is in it."""

from __future__ import annotations

from itertools import pairwise

from rich.text import Text

from pellucid.glass.lens import settled
from pellucid.tui.style import FAINT, NARROW, bar, fitted, level, named, percent, said, visible
from pellucid.tui.view import LayerRow, Layers

BLOCKS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def layers_lines(layers: Layers | None, width: int, height: int) -> list[Text]:
    """None: being computed. Where there is no room for a line a layer: the whole as one line of blocks, and the
    layers at which something changes."""
    if layers is None:
        return [Text("\u2026", FAINT)]
    if layers.note:
        return said(layers.note, width, height)
    rows = layers.rows
    if len(rows) <= height - 1:
        return [_head(layers, width), *(_line(row, width) for row in reversed(rows))]
    lines = [_head(layers, width), _curve(layers, width)]
    turns = _turns(layers)
    for row in list(reversed(turns))[: max(0, height - len(lines))]:
        lines.append(_line(row, width))
    return lines[:height]


def _head(layers: Layers, width: int) -> Text:
    """From which layer on the token is the first."""
    rows = layers.rows
    since = settled([row.rank for row in rows])
    name = repr(visible(layers.token))
    if since == len(rows):
        text = Text(f"{name}: rank {rows[-1].rank + 1:,} at the end")
    else:
        text = Text(f"{name}: first from layer {rows[since].name} on")
    text.truncate(width, overflow="ellipsis")
    return text


def _curve(layers: Layers, width: int) -> Text:
    """One block a layer, from the first to the last: the probability of the token, a full block for certainty."""
    rows = layers.rows
    text = Text()
    for row in rows[-width:]:
        eighths = round(row.probability * 8)
        text.append(BLOCKS[max(eighths, int(row.probability > 0.001))], level(row.probability))
    return text


def _turns(layers: Layers) -> list[LayerRow]:
    """The layers whose most probable token is another than that of the layer before; the last one, too."""
    rows = layers.rows
    turns = [row for before, row in pairwise(rows) if before.top != row.top]
    return turns if turns and turns[-1] is rows[-1] else [*turns, rows[-1]]


def _line(row: LayerRow, width: int) -> Text:
    """layer, its own token, and the probability of the one looked at."""
    text = Text(f"{row.name:>5.5} ")
    if width < NARROW:
        text.append(fitted(named(row.top), max(1, width - 12)), level(row.top_probability))
        return text.append(percent(row.probability), level(row.probability))
    room = width - 6 - 1 - 6 - 1 - 6
    name = min(24, max(6, room // 2))
    text.append(fitted(named(row.top), name) + " ", level(row.top_probability))
    text.append(percent(row.top_probability) + " ")
    text.append(bar(row.probability, room - name), level(row.probability))
    return text.append(percent(row.probability))
