"""The screen of a Textual app as a grid of characters with their styles, read from its SVG export."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

CELL = 12.2  # width of a character in the export


@dataclass(frozen=True)
class Screen:
    lines: list[str]  # trailing spaces stripped
    runs: list[list[tuple[int, str, str]]]  # a line: (column, text, style as CSS)

    def style_at(self, line: int, column: int) -> str:
        for start, text, style in self.runs[line]:
            if start <= column < start + len(text):
                return style
        return ""

    def find(self, text: str) -> int:
        """The first line that holds it."""
        return next(i for i, line in enumerate(self.lines) if text in line)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def screen_of(app) -> Screen:
    svg = app.export_screenshot()
    styles = dict(re.findall(r"\.terminal-\w+-(r\d+) \{([^}]*)\}", svg))
    width, height = app.size
    lines = [[" "] * width for _ in range(height)]
    runs: list[list[tuple[int, str, str]]] = [[] for _ in range(height)]
    pattern = r'<text class="terminal-\w+-(r\d+)" x="([\d.]+)" y="[\d.]+"[^>]*line-(\d+)\)">([^<]*)</text>'
    for name, x, line, text in re.findall(pattern, svg):
        column, shown = round(float(x) / CELL), html.unescape(text).replace("\xa0", " ")
        runs[int(line)].append((column, shown, styles[name].strip()))
        for i, c in enumerate(shown[: width - column]):
            lines[int(line)][column + i] = c
    return Screen(["".join(line).rstrip() for line in lines], runs)
