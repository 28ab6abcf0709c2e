"""How things look: the terminal's own 16 colours, so that it fits any theme and any terminal, dark or light.

A probability has a colour and, for who sees no colours, an attribute: improbable tokens are underlined or bold.
"""

from __future__ import annotations

from rich.text import Text

from pellucid.glass.words import cells, cut, padded, wrapped

LEVELS = ((0.5, "green"), (0.1, "cyan"), (0.01, "yellow"), (0.0, "bold red"))
"""(from this probability on, style), descending."""
NARROW = 30  # cells of a pane: below that there is no room for a bar and a second probability
UNKNOWN = ""
FAINT = "bright_black"
MARKED = "reverse"
TITLE = "bold"
WARNING = "bold red"
OWN = "underline"  # tokens that somebody forced or gave

CONTROLS = {"\n": "\u21b5", "\t": "\u2192", "\r": "\u240d"}


def level(probability: float | None) -> str:
    """The style of a token of this probability."""
    if probability is None:
        return UNKNOWN
    return next(style for least, style in LEVELS if probability >= least or least == 0.0)


def legend() -> str:
    """The styles by themselves, in Textual's markup."""
    words = []
    for least, style in LEVELS:
        *attributes, colour = style.split()
        words.append(
            f"[{' '.join([*attributes, 'ansi_' + colour])}]{f'≥{100 * least:g}%' if least else 'less'}[/]"
        )
    return " ".join(words)


def visible(text: str) -> str:
    """A token on one line: a space is a space, a newline an arrow; nothing in it steers a terminal or turns the
    direction of writing."""
    return "".join(
        CONTROLS[c]
        if c in CONTROLS
        else c
        if c.isprintable()
        else chr(0x2400 + ord(c))
        if ord(c) < 32
        else "\ufffd"
        for c in text
    )


def named(text: str) -> str:
    """A token by itself: spaces at its ends as dots, so that they are seen."""
    shown = visible(text)
    return shown.replace(" ", "\u00b7") if shown != shown.strip(" ") or not shown else shown


def said(text: str, width: int, height: int, style: str = FAINT) -> list[Text]:
    """A sentence in at most `height` lines."""
    lines = [Text(line, style) for line in wrapped(visible(text), width)][:height]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def fitted(text: str, width: int) -> str:
    """Exactly so many cells: cut with an ellipsis, or padded."""
    return padded(cut(text, width), width)


def bar(fraction: float, width: int) -> str:
    """A bar of `width` cells in eighths of a cell; something that is not nothing has at least one eighth."""
    eighths = round(fraction * width * 8)
    if fraction > 0:
        eighths = max(1, eighths)
    full, part = divmod(min(eighths, width * 8), 8)
    drawn = "\u2588" * full + (" \u258f\u258e\u258d\u258c\u258b\u258a\u2589"[part] if part else "")
    return drawn + " " * (width - cells(drawn))


def percent(p: float) -> str:
    """Six cells: " 53.8%", " 0.03%", " 6e-7%"."""
    if p >= 0.9995:
        return "  100%" if p == 1 else " >99.9"
    if p >= 0.0001 or p == 0:
        return f"{100 * p:5.1f}%" if p >= 0.01 or p == 0 else f"{100 * p:5.2f}%"
    short = f"{100 * p:.0e}%".replace("e-0", "e-")
    return f"{short:>6}" if len(short) <= 6 else "   ~0%"
