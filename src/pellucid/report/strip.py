"""The text, token by token, coloured by probability; and the same tokens as a table for paper and screen readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pellucid.report.html import (
    LINE_BREAK,
    PROBABILITY_LEVELS,
    escape,
    number,
    percent,
    probability_level,
    show,
    token_label,
)
from pellucid.report.page_data import PROMPT, TokenView

_TABLE_TOP = 4  # alternatives in a row of the table


def strip(tokens: Sequence[TokenView], index: int) -> str:
    """The tokens of branch `index` as spans: p0 (sure) to p7 by probability, u without one. The script gives them
    their roles and makes them reachable by keyboard."""
    spans = "".join(_span(token) for token in tokens)
    return f'<div class="strip" data-b="{index}" dir="ltr">{spans}</div>'


def _span(token: TokenView) -> str:
    level = probability_level(token.logprob)
    classes = ["u" if level is None else f"p{level}"]
    if token.kind == PROMPT:
        classes.append("q")
    elif token.kind != "drawn":
        classes.append("f")
    name = classes[0] if len(classes) == 1 else f'"{" ".join(classes)}"'
    # A line break is shown by its arrow, and made as well.
    text = (
        escape(show(token.shown or token.text)).replace(LINE_BREAK, LINE_BREAK + "\n")
        if token.text
        else "\u2205"
    )
    return f"<span class={name}>{text}</span>"


def legend() -> str:
    """What the colours mean."""
    bounds = [f"{100 * bound:g}%" for bound in PROBABILITY_LEVELS]
    words = [f"\u2265 {bound}" for bound in bounds] + [f"< {bounds[-1]}"]
    keys = "".join(f"<span class=p{level}>{word}</span>" for level, word in enumerate(words))
    return (
        f'<p class="legend">probability under the model: {keys} '
        '<span class="p5 q">prompt</span> <span class="p1 f">not drawn (forced or given)</span></p>'
    )


def token_table(tokens: Iterable[TokenView]) -> str:
    """One row a token: its number, text, probability, rank, entropy, margin, and what else was probable."""
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("#", "token", "id", "how", "p", "rank", "entropy", "margin", "most probable")
    )
    rows = "".join(_row(token) for token in tokens)
    return f'<table class="tokens"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(token: TokenView) -> str:
    others = " ".join(
        f"<b>{escape(token_label(other.text))}</b>&nbsp;{percent(other.logprob)}"
        for other in token.top[:_TABLE_TOP]
    )
    margin = number(token.choice.margin) if token.choice is not None else ""
    cells = [
        token.position,
        f"<b>{escape(token_label(token.shown or token.text))}</b>",
        token.token_id,
        escape(token.kind),
        percent(token.logprob),
        "" if token.rank is None else token.rank + 1,
        "" if token.entropy is None else number(token.entropy),
        margin,
        others,
    ]
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)
