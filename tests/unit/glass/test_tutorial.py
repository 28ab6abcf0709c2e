"""docs/tutorial.md is what the commands in it print, on the real model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from real_models import real_model

ROOT = Path(__file__).parents[3]


def tutorial():
    spec = importlib.util.spec_from_file_location("gen_tutorial", ROOT / "tools" / "gen_tutorial.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date():
    module = tutorial()
    page = module.PAGE.read_text(encoding="utf-8")
    assert len(module.BLOCK.findall(page)) >= 3
    assert module.filled(page, str(real_model("smollm2"))) == page


def test_a_change_would_be_seen(monkeypatch):
    module = tutorial()
    monkeypatch.setattr(module, "output", lambda command, model: f"other: {command}\n")
    page = module.filled(module.PAGE.read_text(encoding="utf-8"), None)
    assert (
        '```text\n$ pellucid explain "The quick brown fox"\nother: pellucid explain "The quick brown fox"\n```'
        in page
    )
