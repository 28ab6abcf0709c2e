"""A headless Chromium, driven with Playwright; every page's console and errors are collected."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 300_000  # milliseconds: the machine may be busy
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]  # as root in a container, neither can be had


@pytest.fixture(
    scope="module"
)  # no longer: while it is open, no other test in this thread can run an event loop
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install 'pellucid[browser]'")
    path = os.environ.get("PELLUCID_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs Chromium (Debian: apt install chromium), or PELLUCID_CHROMIUM with its path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """open_page(html, **of the context): a page that has loaded it from a file. At the end of the test: nothing was
    written to a console, no script failed, nothing was asked of the network."""
    troubles: list[str] = []
    contexts: list[Any] = []

    def opened(html: str, **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(html, encoding="utf-8")

        def asked(request: Any) -> None:
            if not request.url.startswith((file.as_uri(), "data:")):
                troubles.append(f"request {request.url}")

        page.on("request", asked)
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles
