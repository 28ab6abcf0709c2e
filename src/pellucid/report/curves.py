"""Curves over the tokens of a branch as inline SVG: surprise and entropy, and the margin of each choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.report.html import escape, number
from pellucid.report.page_data import PROMPT, TokenView

AREA = "c0"  # the mark of a curve that is drawn as an area
_HEIGHT = 100  # of the drawing, in its own units; its width is one unit a token


@dataclass(frozen=True)
class Curve:
    """One line. values: None where there is none (the line has a gap). mark: its class."""

    name: str
    mark: str
    values: tuple[float | None, ...]


def curves(tokens: Sequence[TokenView], index: int) -> str:
    """The figures of branch `index`; "" if there is nothing to draw."""
    surprise = Curve("surprise of the token", "c1", tuple(_surprise(token) for token in tokens))
    entropy = Curve("entropy of the distribution", AREA, tuple(token.entropy for token in tokens))
    margin = Curve("margin of the choice", "c2", tuple(_margin(token) for token in tokens))
    seconds = Curve("time of the step", "c3", tuple(_milliseconds(token) for token in tokens))
    border = sum(1 for token in tokens if token.kind == PROMPT)
    figures = [
        _figure(
            index,
            (entropy, surprise),
            "nats",
            "How much was open (entropy) and how unexpected the token was (its negative log-probability). A peak of "
            "both is a real choice; surprise far above the entropy is an unlikely draw or a token put in by hand.",
            border,
        ),
        _figure(
            index,
            (margin,),
            "score",
            "How far the runner-up was from being chosen, in logits, noise included. Near 0: nearly the "
            "other token. A gap: no other token was left.",
            border,
        ),
        _figure(
            index,
            (seconds,),
            "ms",
            "Time of the forward pass, which other sequences may have shared, and of its choices.",
            border,
        ),
    ]
    return "".join(figures)


def _surprise(token: TokenView) -> float | None:
    if token.logprob is None or not math.isfinite(token.logprob):
        return None
    return max(0.0, -token.logprob)


def _margin(token: TokenView) -> float | None:
    """None where nothing else was left to choose: the margin is infinite there."""
    if token.choice is None or not math.isfinite(token.choice.margin):
        return None
    return token.choice.margin


def _milliseconds(token: TokenView) -> float | None:
    return None if token.seconds is None else 1e3 * token.seconds


def _figure(index: int, lines: Sequence[Curve], unit: str, caption: str, border: int) -> str:
    known = [value for line in lines for value in line.values if value is not None]
    if len(known) < 2:
        return ""
    top = max(known) or 1.0
    width = len(lines[0].values)
    drawn = "".join((_area if line.mark == AREA else _path)(line, top) for line in lines)
    end = f'<path class="border" d="M{border} 0V{_HEIGHT}"/>' if 0 < border < width else ""
    names = " ".join(f'<span class="key {line.mark}">{escape(line.name)}</span>' for line in lines)
    spoken = "; ".join(_spoken(line, unit) for line in lines)
    return (
        f'<figure class="curve" data-b="{index}"><figcaption>{names} <small>{escape(caption)}</small></figcaption>'
        f'<div class="plot"><div class="axis"><span>{number(top, 2)} {unit}</span><span>0</span></div>'
        f'<svg viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(spoken)}">'
        f'<path class="grid" d="M0 {_HEIGHT / 2:g}H{width}M0 {_HEIGHT}H{width}"/>{end}{drawn}'
        f'<path class="cursor" d=""/></svg></div></figure>'
    )


def _path(line: Curve, top: float) -> str:
    """One step a token, at its value from x to x + 1."""
    parts: list[str] = []
    before = False
    for x, value in enumerate(line.values):
        if value is None:
            before = False
            continue
        y = f"{_HEIGHT * (1 - value / top):.1f}".removesuffix(".0")
        parts.append(f"V{y}h1" if before else f"M{x} {y}h1")
        before = True
    return f'<path class="{line.mark}" d="{"".join(parts)}"/>'


def _area(line: Curve, top: float) -> str:
    """The same, filled down to 0."""
    parts = [
        f"M{x} {_HEIGHT}V{_HEIGHT * (1 - value / top):.1f}h1V{_HEIGHT}z"
        for x, value in enumerate(line.values)
        if value is not None and value > 0
    ]
    return f'<path class="{line.mark}" d="{"".join(parts)}"/>'


def _spoken(line: Curve, unit: str) -> str:
    known = [value for value in line.values if value is not None]
    if not known:
        return f"{line.name}: none"
    mean = math.fsum(known) / len(known)
    return f"{line.name}: {number(min(known))} to {number(max(known))} {unit}, {number(mean)} on average"
