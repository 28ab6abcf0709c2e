"""Tokens and numbers in words for plain text: quoted, measured in terminal cells, wrapped, never cut off in silence."""

from __future__ import annotations

from collections.abc import Iterable
from unicodedata import combining, east_asian_width

HARD_SPACE = "\ue000"  # private use: a space at which no line is broken, until `flowed` is done


def cells(text: str) -> int:
    """Columns that a terminal gives it (Unicode Standard Annex 11: wide characters take two)."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def quoted(text: str, most: int = 24) -> str:
    """In quotes, on one line: what is not printable (controls, marks that turn the direction of writing) as escapes;
    cut to `most` cells with an ellipsis. U+00A0 is \\u00a0, since \\xa0 is a byte (`Tokenizer.token_text`)."""
    inside = "".join(c if c.isprintable() else _escaped(c) for c in text)
    return f'"{cut(inside, most)}"'


def _escaped(c: str) -> str:
    return f"\\u{ord(c):04x}" if "\x7f" < c < "\u0100" else c.encode("unicode_escape").decode()


def unbroken(text: str) -> str:
    """The same for `wrapped`, which breaks no line in it."""
    return text.replace(" ", HARD_SPACE)


def cut(text: str, most: int) -> str:
    """At most so many cells, with an ellipsis where something was left out."""
    if cells(text) <= most:
        return text
    kept = ""
    for c in text:  # the ellipsis takes one
        if cells(kept + c) > most - 1:
            break
        kept += c
    return kept + "\u2026"


def padded(text: str, width: int) -> str:
    """Spaces after it up to so many cells."""
    return text + " " * max(0, width - cells(text))


def percent(p: float) -> str:
    """A probability with the digits that count, at any size."""
    if p == 1 or p == 0:
        return f"{100 * p:.0f}%"
    if p > 0.999:
        return f"{100 * p:.4f}%" if p < 0.9999995 else "almost 100%"
    if p >= 0.0001:
        return f"{100 * p:.{1 if p >= 0.01 else 2 if p >= 0.001 else 3}f}%"
    return f"{100 * p:.0e}%".replace("e-0", "e-")


def listed(names: list[str]) -> str:
    """ "a", "a and b", "a, b and c" """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(count: int, noun: str) -> str:
    """ "1 row", "3 rows" """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def wrapped(text: str, width: int, indent: int = 0, hang: int | None = None) -> list[str]:
    """A paragraph in lines of at most `width` cells; a word that is longer stands alone. hang: the indent of the
    lines after the first."""
    return flowed(" " * indent, text.split(), width, " ", indent if hang is None else hang)


def flowed(head: str, pieces: Iterable[str], width: int, gap: str, hang: int) -> list[str]:
    """`head`, then the pieces with `gap` between them; where the next does not fit, a new line after `hang` spaces."""
    lines, empty = [head], True
    for piece in pieces:
        joined = lines[-1] + ("" if empty else gap) + piece
        if cells(joined) <= width or (empty and len(lines) > 1):
            lines[-1] = joined
        else:
            lines.append(" " * hang + piece)
        empty = False
    return [line.rstrip().replace(HARD_SPACE, " ") for line in lines if line.strip()]
