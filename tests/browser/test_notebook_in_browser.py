"""Fragments of notebooks in a real browser: hostile texts stay texts, and can be read on a light and on a dark page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from report_pages import HOSTILE

from pellucid.report.html import show
from pellucid.report.notebook import Piece, bars, heatmap, note, table, token_strip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fragments_are_quiet_and_harmless(open_page: Any, scheme: str) -> None:
    texts = [text for text in HOSTILE if text]
    fragments = [
        token_strip(Piece(text, -1.0, title=text) for text in texts),
        table(["text"], [[text] for text in texts]),
        bars((text, -1.0) for text in texts),
        heatmap(np.eye(3), texts[0]),
        *map(note, texts),
    ]
    body = "".join(f"<section>{fragment}</section>" for fragment in fragments)
    head = (
        "<!DOCTYPE html><html><head><meta charset=utf-8><meta name=color-scheme content='light dark'></head>"
    )
    page = open_page(f"{head}<body>{body}</body></html>", color_scheme=scheme)
    assert page.locator("script, img, iframe, base, form").count() == 0
    spans = page.eval_on_selector_all("section:first-child span", "all => all.map(e => e.textContent)")
    assert [span.replace("\u21b5\n", "\u21b5") for span in spans] == [show(text) for text in texts]
    titles = page.eval_on_selector_all("section:first-child span", "all => all.map(e => e.title)")
    assert titles == [show(text) for text in texts]
    cells = page.eval_on_selector_all("td", "all => all.map(e => e.textContent)")
    assert cells == [show(text) for text in texts]
