"""The lens as a heatmap, layers by tokens, in inline SVG: runs of equal cells are one piece of one path a level.

The cells are coloured by rank; the script colours them by probability where that is asked for (PROBABILITY_LEVELS).
"""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.report.html import PROBABILITY_LEVELS, RANK_LEVELS, escape, rank_level
from pellucid.report.html import token_label as label
from pellucid.report.page_data import TokenView

BAND = 48  # tokens beside each other: the width of a printed page
CELL_WIDTH, CELL_HEIGHT = 14, 11  # pixels
_LABEL_HEIGHT = 76
_LABEL = 10  # characters


def heatmap(tokens: Sequence[TokenView], layer_names: Sequence[str], index: int) -> str:
    """The figure of branch `index`; "" if no token has a lens. The last layer is on top.

    Only the tokens from the first to the last that has a lens are drawn.
    """
    known = [i for i, token in enumerate(tokens) if token.layers]
    if not known or not layer_names:
        return ""
    first, stop = known[0], known[-1] + 1
    bands = "".join(
        _band(tokens[start : min(start + BAND, stop)], start, len(layer_names), stop - first > BAND)
        for start in range(first, stop, BAND)
    )
    step = max(1, round(len(layer_names) / 8))
    names = "".join(
        f"<span>{escape(name) if (len(layer_names) - 1 - row) % step == 0 else ''}</span>"
        for row, name in enumerate(reversed(layer_names))
    )
    return (
        f'<figure class="lens by-rank" data-b="{index}" data-first="{first}">'
        f"<figcaption>{_legend()}<small class=on-paper>Rows from {escape(layer_names[-1])} on top down to "
        f"{escape(layer_names[0])}.</small></figcaption>"
        f'<div class="map"><div class="layers" aria-hidden="true">{names}</div>'
        f'<div class="bands">{bands}</div></div></figure>'
    )


def _legend() -> str:
    ranks = ["first", *(f"top {bound + 1:,}" for bound in RANK_LEVELS[1:]), f"below {RANK_LEVELS[-1] + 1:,}"]
    chances = [f"\u2265 {100 * bound:g}%" for bound in PROBABILITY_LEVELS]
    chances.append(f"< {100 * PROBABILITY_LEVELS[-1]:g}%")
    keys = "".join(f'<span class="h{level} of-rank">{word}</span>' for level, word in enumerate(ranks))
    keys += "".join(f'<span class="h{level} of-p">{word}</span>' for level, word in enumerate(chances))
    return f'<span class="legend">{keys}</span>'


def _band(tokens: Sequence[TokenView], start: int, num_layers: int, fixed: bool) -> str:
    """Tokens from `start` on. fixed: as wide as the other bands, whatever it holds."""
    columns = BAND if fixed else len(tokens)
    width, depth = columns * CELL_WIDTH, num_layers * CELL_HEIGHT
    ranks = [[rank_level(cell.rank) for cell in token.layers] for token in tokens]
    texts = "".join(
        f'<text y="{-CELL_WIDTH * i - 4}">{escape(label(token.shown or token.text, _LABEL))}</text>'
        for i, token in enumerate(tokens)
    )
    return (
        f'<svg data-start="{start}" width="{width}" height="{depth + _LABEL_HEIGHT}"'
        f' viewBox="0 0 {width} {depth + _LABEL_HEIGHT}">'
        f'<g class="cells" transform="scale({CELL_WIDTH} {CELL_HEIGHT}) translate(0 .5)">'
        f"{_paths(ranks, num_layers)}</g>"
        f'<g transform="scale({CELL_WIDTH} {CELL_HEIGHT})"><path class="at" d=""/></g>'
        f'<g class="names" transform="translate(0 {depth + 4}) rotate(90)">{texts}</g></svg>'
    )


def _paths(levels: list[list[int]], num_layers: int) -> str:
    """levels [tokens][layers]; a token without a lens has none. One path for each level, of runs along a layer: lines
    of width 1 through the middle of their row."""
    pieces: dict[int, list[str]] = {}
    for layer in range(num_layers):
        row = num_layers - 1 - layer
        x = 0
        while x < len(levels):
            if not levels[x]:
                x += 1
                continue
            level, start = levels[x][layer], x
            while x < len(levels) and levels[x] and levels[x][layer] == level:
                x += 1
            pieces.setdefault(level, []).append(f"M{start} {row}h{x - start}")
    return "".join(
        f'<path class="h{level}" d="{"".join(found)}"/>' for level, found in sorted(pieces.items())
    )
