"""The bar as it is drawn."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from pellucid.fetch.progress import TerminalProgress


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_bar_is_one_line_with_whole_numbers(width):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None, highlight=False)
    progress = TerminalProgress(console)
    what = "fetching smollm2-135m-instruct from the package index"
    progress.begin(what, 253_113_024)
    progress.at(123_400_000)
    progress.end(True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert plain.split("\n")[0] == what  # soft wrapped: whole, for the terminal to break
    bars = [line for line in re.split(r"[\r\n]+", plain) if "MB" in line]
    assert bars
    assert all(len(line) <= width for line in bars)
    assert "123.4/253.1 MB" in bars[-1]
    assert "…" not in plain
