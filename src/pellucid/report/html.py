"""Text into HTML, with nothing left that could act: markup, control characters, marks that reorder a line.

Token texts come from models, and models learn from anybody. Everything of theirs goes through `show` (what cannot be
seen is named) and `escape` (what is markup is text) before it stands in a page. Imports nothing of ours.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from html import escape as _escape
from math import exp, isinf, isnan
from typing import Any

_JOINERS = "\u200c\u200d"  # shape emoji and several scripts; harmless beside other characters
LINE_BREAK = "\u21b5"
_PICTURES = {
    "\n": LINE_BREAK,
    "\t": "\u21e5",
}  # glyphs that every font has; other controls are written as \\xNN
# A probability belongs to the first level whose bound it reaches; the last level has no bound. 0: sure.
PROBABILITY_LEVELS = (0.9, 0.5, 0.25, 0.1, 0.03, 0.01, 0.001)
# The same for ranks: the first level that holds the rank; 0: the most probable token.
RANK_LEVELS = (0, 2, 9, 29, 99, 999, 9999)
_CUT = 24  # characters of a token in a narrow place


def escape(text: object) -> str:
    """Safe as HTML text and within quoted attributes."""
    return _escape(str(text), quote=True)


def show(text: str) -> str:
    """The text with everything invisible named: line breaks and tabs as arrows, other controls as \\xNN, format
    characters (bidirectional marks, zero width), separators, lone surrogates, noncharacters as \\uXXXX. Spaces stay."""
    alone = all(character in _JOINERS for character in text)
    return "".join(_visible(character, alone) for character in text)


def token_label(text: str, cut: int = _CUT) -> str:
    """A token on one line: as `show`, spaces at its ends as dots, a combining mark on a dotted circle, and no longer
    than `cut` characters."""
    if not text:
        return "\u2205"
    shown = show(text)
    inner = shown.strip(" ")
    before = len(shown) - len(shown.lstrip(" "))
    shown = "\u00b7" * before + inner + "\u00b7" * (len(shown) - before - len(inner) if inner else 0)
    if unicodedata.category(shown[0]).startswith("M"):
        shown = "\u25cc" + shown
    return shown if len(shown) <= cut else shown[: cut - 1] + "\u2026"


def _visible(character: str, alone: bool) -> str:
    if character in _PICTURES:
        return _PICTURES[character]
    code, kind = ord(character), unicodedata.category(character)
    if kind == "Cc":
        return f"\\x{code:02x}"
    if kind in ("Cf", "Cs", "Zl", "Zp") and (alone or character not in _JOINERS):
        return f"\\u{code:04x}"
    if code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return f"\\u{code:04x}"
    return character


def data_script(identity: str, value: Any) -> str:
    """A JSON value as a data block of a page. Within it no character can end the block or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{escape(identity)}">{text}</script>'


def probability_level(logprob: float | None) -> int | None:
    """0 (sure) to 7 (improbable) of a natural log-probability; None of None."""
    if logprob is None:
        return None
    return _level(lambda bound: exp(logprob) >= bound, PROBABILITY_LEVELS)


def rank_level(rank: int) -> int:
    """0 (the most probable token) to 7."""
    return _level(lambda bound: rank <= bound, RANK_LEVELS)


def _level(reached: Callable[[float], bool], bounds: tuple[float, ...]) -> int:
    return next((level for level, bound in enumerate(bounds) if reached(bound)), len(bounds))


def number(value: float, digits: int = 3) -> str:
    """A number in few characters: significant digits, no exponent between 1e-4 and 1e6."""
    if isnan(value):
        return "nan"
    if isinf(value):
        return "-\u221e" if value < 0 else "\u221e"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e6:
        whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
        places = max(0, digits - whole) if whole else digits - 1 - _exponent(value)
        text = f"{value:.{places}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{digits - 1}e}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def percent(logprob: float | None) -> str:
    """A natural log-probability as a percentage."""
    if logprob is None:
        return ""
    value = 100 * exp(logprob)
    if value >= 99.95:
        return "100%" if logprob == 0 else ">99.9%"
    if value < 0.01:
        return "0%" if value == 0 else "<0.01%"
    return f"{value:.1f}%" if value >= 1 else f"{value:.2f}%"
