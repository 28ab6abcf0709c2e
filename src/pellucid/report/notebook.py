"""Fragments of HTML for notebooks: a text coloured by probability, bars, a table, a heatmap.

A notebook's page is not ours: no script, no style sheet, no identifiers; colours are translucent, so that they stand on
a light page as on a dark one. Texts are made harmless here, by `report.html`. Imports nothing else of ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pellucid.report.html import escape, number, percent, show, token_label

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DIM = "opacity:.6;font-size:85%"
_LEFT = "text-align:left"
_ORANGE, _BLUE = "255,140,0", "50,120,190"
_MOST_COLUMNS, _MOST_ROWS = 256, 64  # of a heatmap
_ENDING = 40  # characters of a branch's text
_LEVELS = 16  # its colours
_CELL = 10  # pixels
_MOST_LISTED = 50  # rows of a table
_MOST_VALUES = 64 << 20  # of a site whose norms are drawn without being asked for


class Piece(NamedTuple):
    """One token. logprob: natural, under the model, None: not known. dim: of the prompt. marked: not drawn. title: what
    the pointer shows."""

    text: str
    logprob: float | None = None
    dim: bool = False
    marked: bool = False
    title: str = ""


def token_strip(pieces: Iterable[Piece]) -> str:
    """The text, each token shaded the more the less probable it was; prompts dim, tokens that were not drawn dashed."""
    return f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{"".join(map(_span, pieces))}</div>'


def _span(piece: Piece) -> str:
    styles = []
    if piece.logprob is not None:
        styles.append(f"background:rgba({_ORANGE},{0.6 * (1 - math.exp(min(0.0, piece.logprob))):.2f})")
    if piece.dim:
        styles.append("opacity:.6")
    if piece.marked:
        styles.append("outline:1px dashed")
    style = f' style="{";".join(styles)}"' if styles else ""
    title = f' title="{escape(show(piece.title))}"' if piece.title else ""
    text = show(piece.text).replace("\u21b5", "\u21b5\n")
    return f"<span{style}{title}>{escape(text)}</span>"


def note(text: str) -> str:
    """A dim line."""
    return f'<div style="{_DIM}">{escape(show(text))}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Cells are text."""
    titles = "".join(f'<th style="{_LEFT}">{escape(show(name))}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_LEFT}">{escape(show(str(cell)))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{titles}</tr>{body}</table>"


def bars(rows: Iterable[tuple[str, float]]) -> str:
    """(token, log-probability): a bar for each, as long as it is probable."""
    lines = "".join(
        f'<div style="display:grid;grid-template-columns:9em 12em 5em;align-items:center">'
        f"<code>{escape(token_label(text))}</code>"
        f'<span style="display:block;height:.7em;width:{100 * math.exp(min(0.0, logprob)):.1f}%;'
        f'min-width:1px;background:rgba({_BLUE},.8)"></span>'
        f"<span>{percent(logprob)}</span></div>"
        for text, logprob in rows
    )
    return f"<div>{lines}</div>"


def heatmap(values: NDArray[np.floating[Any]], caption: str) -> str:
    """values [rows, columns], not negative: the stronger the colour the larger, in 16 levels of one scale; what is not
    finite stays empty. The first row is at the bottom, as layers are. A large array is thinned: the caption says so."""
    row_step = math.ceil(max(1, len(values)) / _MOST_ROWS)
    column_step = math.ceil(max(1, values.shape[1]) / _MOST_COLUMNS)
    shown = values[::row_step, ::column_step]
    rows, columns = shown.shape
    finite = [float(value) for value in shown.flat if math.isfinite(value)]
    top = max(finite, default=0.0) or 1.0
    pieces: dict[int, list[str]] = {}
    for y in range(rows):
        levels = [_level(float(value), top) for value in shown[y]]
        x = 0
        while x < columns:
            start = x
            while x < columns and levels[x] == levels[start]:
                x += 1
            pieces.setdefault(levels[start], []).append(f"M{start} {rows - 1 - y}h{x - start}v1H{start}z")
    paths = "".join(
        f'<path fill-opacity="{level / _LEVELS:.2f}" d="{"".join(found)}"/>'
        for level, found in sorted(pieces.items())
        if level > 0
    )
    thinned = ""
    if row_step > 1 or column_step > 1:
        thinned = f" (one of {row_step} rows and one of {column_step} columns is drawn)"
    scale = f"; strongest: {number(top, 4)}" if finite else ""
    return (
        f'<div style="overflow-x:auto"><svg role="img" aria-label="{escape(show(caption))}" '
        f'width="{columns * _CELL}" height="{rows * _CELL}" viewBox="0 0 {columns} {rows}" '
        f'fill="rgb({_BLUE})" shape-rendering="crispEdges">{paths}</svg></div>{note(caption + scale + thinned)}'
    )


def _level(value: float, top: float) -> int:
    """0 to 16; -1: not finite."""
    return round(_LEVELS * max(0.0, value) / top) if math.isfinite(value) else -1


def generation_html(generation: Any) -> str:
    """Of a `Generation`: its text, shaded where a step has looked at the probabilities, how it stands, its branches.
    Nothing is computed for it."""
    records = {record.position: record for record in generation.records}
    pieces = []
    for position, token in enumerate(generation.token_array.tolist()):
        record = records.get(position)
        if record is None:
            pieces.append(Piece(generation.token_text(token), dim=True, title=f"{position}: {token}, prompt"))
            continue
        said = f"{position}: {token}, {record.kind}"
        if record.logprob is not None:
            said += f", {percent(record.logprob)}"
        if record.processed_logprob is not None:
            said += f", drawn with {percent(record.processed_logprob)}"
        pieces.append(Piece(record.text, record.logprob, marked=record.kind != "drawn", title=said))
    state = generation.finish_reason or "goes on"
    num_after = len(generation.tokens)
    lines = [f"{len(generation) - num_after} tokens of prompt, {num_after} after them; {state}"]
    tree = [branch for branch in generation.branch.root.walk() if branch.generation is not None]
    if len(tree) > 1:
        lines += [_branch_line(branch, generation) for branch in tree]
    return f"<div>{token_strip(pieces)}{''.join(map(note, lines))}</div>"


def _branch_line(branch: Any, generation: Any) -> str:
    """Indented by its depth, with the end of its text."""
    text = branch.generation.text
    end = text if len(text) <= _ENDING else "\u2026" + text[-_ENDING:]
    here = " \u2190 this one" if branch.generation is generation else ""
    name = f"{branch.label}: " if branch.label else ""
    return f"{chr(0xA0) * 4 * branch.depth}\u2514 {name}{len(branch.generation)} tokens, {end!r}{here}"


def captured_html(captured: Any) -> str:
    """Of a `glass.flow.Captured`: what it holds, what is missing, and how large the first site is, layer by layer."""
    import numpy as np

    rows = [
        [site, len(captured.layers(site)), ", ".join(map(str, captured.layers(site)))]
        for site in captured.sites
    ]
    parts = [table(["site", "layers", "which"], rows), note(repr(captured))]
    parts += [
        note(f"positions {start} to {stop - 1} are missing: {why}") for start, stop, why in captured.missing
    ]
    if captured.sites and len(captured):
        site = captured.sites[0]
        if math.prod(captured.stored(site).shape) <= _MOST_VALUES:
            norms = np.log1p(np.asarray(captured.norms(site), np.float64).T)
            parts.append(heatmap(norms, f"log(1 + norm) of {site}: layers (the last on top) by positions"))
        else:
            parts.append(note(f"{site}: too large to be drawn here; see norms()"))
    return f"<div>{''.join(parts)}</div>"


def lens_html(lens: Any) -> str:
    """Of a `glass.lens.Lens`: how probable each layer found the token of each row, and when that settled."""
    import numpy as np

    settled = lens.settled().tolist()
    last = len(lens.layers)
    said = [lens.layers[column] if column < last else "never" for column in settled]
    rows = list(zip(lens.positions.tolist(), lens.tokens.tolist(), said, strict=True))
    parts = [
        heatmap(
            np.exp(lens.logprobs.astype(np.float64)).T,
            "probability of the token: layers (the last on top) by rows",
        ),
        table(["position", "token id", "most probable from layer"], rows[:_MOST_LISTED]),
    ]
    if len(rows) > _MOST_LISTED:
        parts.append(note(f"{len(rows) - _MOST_LISTED} more rows"))
    return f"<div>{''.join(parts)}</div>"
