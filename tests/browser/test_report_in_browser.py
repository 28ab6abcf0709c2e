"""The report page in a real browser: it is quiet, it can be used without a mouse, it fits, it prints."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from report_pages import HOSTILE, make_report

from pellucid.report.html import probability_level, rank_level, show, token_label
from pellucid.report.page import render

WORDS = [f" word{i}" for i in range(120)]


@pytest.fixture(scope="module")
def report() -> Any:
    return make_report(WORDS, num_prompt=3, forks=[(0, 100)], name="a run")


@pytest.fixture(scope="module")
def html(report: Any) -> str:
    return render(report)


def selected(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        ".strip [aria-selected=true]", "all => all.map(e => e.textContent)"
    )
    return found


def heading(page: Any) -> str:
    text: str = page.inner_text("#panel h2")
    return text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 360])
def test_it_fits_the_window(open_page: Any, html: str, scheme: str, width: int) -> None:
    page = open_page(html, color_scheme=scheme, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", background)[:3])) > 600 or scheme == "dark"
    assert sum(map(int, re.findall(r"\d+", background)[:3])) < 150 or scheme == "light"


def test_hostile_tokens_stay_text(open_page: Any) -> None:
    texts = [text for text in HOSTILE if text]
    page = open_page(render(make_report(texts, name=texts[0])))
    shown = page.eval_on_selector_all(".strip span", "all => all.map(e => e.textContent)")
    assert [each.replace("\u21b5\n", "\u21b5") for each in shown] == [show(text) for text in texts]
    assert page.locator("script").count() == 2 and page.locator("img, iframe, object, base").count() == 0
    for i, text in enumerate(texts):
        page.locator(".strip span").nth(i).focus()
        assert heading(page) == token_label(text, 1000)


def test_the_policy_holds_even_where_escaping_would_not(chromium: Any, html: str, tmp_path: Path) -> None:
    """Markup put into the page by force neither runs nor loads anything."""
    attack = (
        "<script>window.attacked = 1</script><img src=x onerror='window.attacked = 2'>"
        "<style>body { display: none }</style><iframe src='data:text/html,x'></iframe>"
        "<link rel=stylesheet href=other.css><base href=https://example.org/>"
    )
    file = tmp_path / "attacked.html"
    file.write_text(html.replace("<main>", "<main>" + attack, 1), encoding="utf-8")
    context = chromium.new_context()
    page = context.new_page()
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("requestfinished", lambda request: failed.append("loaded " + request.url))
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('.strip span')[4].click()")
    assert page.evaluate("document.baseURI") == file.as_uri()
    assert page.evaluate("window.attacked") is None
    assert page.evaluate("getComputedStyle(document.body).display") == "block"
    assert page.url.startswith(file.as_uri()) and heading(page) == "\u00b7word4"
    assert len(refused) >= 4 and all("Content Security Policy" in text for text in refused)
    assert [url for url in failed if url.startswith("loaded") and not url.endswith("attacked.html")] == []
    context.close()


def test_the_keyboard_reaches_every_token(open_page: Any, html: str) -> None:
    page = open_page(html)
    page.locator(".strip span").nth(4).click()
    assert selected(page) == [WORDS[4]] and heading(page) == "\u00b7word4"
    page.keyboard.press("ArrowRight")
    assert selected(page) == [WORDS[5]]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert selected(page) == [WORDS[3]] and heading(page) == "\u00b7word3"
    page.keyboard.press("End")
    assert selected(page) == [WORDS[-1]]
    page.keyboard.press("ArrowRight")
    assert selected(page) == [WORDS[-1]]
    page.keyboard.press("Home")
    for i in range(30):
        assert heading(page) == token_label(WORDS[i])
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    below = page.evaluate("document.activeElement.getBoundingClientRect().top")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") < below


def test_one_stop_of_the_tab_key_for_each_text_and_figure(open_page: Any, html: str) -> None:
    page = open_page(html)
    page.evaluate("document.activeElement.blur()")
    roles = []
    for _ in range(40):
        page.keyboard.press("Tab")
        roles.append(
            page.evaluate(
                "[document.activeElement.tagName, document.activeElement.className, "
                "document.activeElement.getAttribute('role')].join(' ')"
            )
        )
        if roles[-1].startswith("BODY"):
            break
    for branch in range(2):
        assert sum(role.endswith("option") for role in roles) == 2, branch
    assert sum(role.startswith("DIV plot") for role in roles) == 6
    assert sum(role.startswith("DIV bands") for role in roles) == 2
    assert roles[-1].startswith("BODY"), "the tab key never leaves the page"


def test_the_panel_shows_the_numbers_of_the_token(open_page: Any, html: str, report: Any) -> None:
    page = open_page(html)
    token = report.branches[0].tokens[50]
    page.locator(".strip").first.locator("span").nth(50).click()
    panel = page.inner_text("#panel")
    facts = dict(
        zip(
            page.locator("#panel dt").all_inner_texts(),
            page.locator("#panel dd").all_inner_texts(),
            strict=True,
        )
    )
    assert facts["token id"] == str(token.token_id) and facts["position"] == "50"
    assert facts["rank"] == str(token.rank + 1)
    assert float(facts["log-probability"]) == pytest.approx(token.logprob, rel=1e-3)
    assert float(facts["entropy"].removesuffix(" nats")) == pytest.approx(token.entropy, rel=1e-3)
    assert " ".join(token.note.split()) in panel
    for each in token.top:
        assert token_label(each.text) in panel
    for stage in token.choice.stages:
        assert stage.name in panel and f"{stage.left:,}" in panel
    for cell in token.layers:
        assert f"{cell.rank + 1:,}" in panel


def test_the_pointer_previews_and_the_choice_comes_back(open_page: Any, html: str) -> None:
    page = open_page(html)
    spans = page.locator(".strip").first.locator("span")
    spans.nth(10).click()
    spans.nth(20).hover()
    assert heading(page) == "\u00b7word20"
    page.mouse.move(5, 5)
    assert heading(page) == "\u00b7word10" and selected(page) == [WORDS[10]]


def test_the_heatmap_follows_the_keys_and_the_pointer(open_page: Any, html: str, report: Any) -> None:
    page = open_page(html, viewport={"width": 1280, "height": 900})
    lens = page.locator("figure.lens").first
    cell = lens.locator("svg").first.bounding_box()
    lens.scroll_into_view_if_needed()
    cell = lens.locator("svg").first.bounding_box()
    assert cell is not None
    page.mouse.click(
        cell["x"] + 14 * 6.5, cell["y"] + 11 * 1.5
    )  # band 0 begins at token 1: token 7, layer 2 of 0..3
    assert selected(page) == [WORDS[7]]
    line = lens.locator(".readout").inner_text()
    assert (
        line.startswith("1: \u00b7word7") and f"{report.branches[0].tokens[7].layers[2].rank + 1:,}" in line
    )
    page.keyboard.press("ArrowUp")
    assert lens.locator(".readout").inner_text().startswith("2: \u00b7word7")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert lens.locator(".readout").inner_text().startswith("0: \u00b7word7")
    page.keyboard.press("ArrowRight")
    assert selected(page) == [WORDS[8]]


def cells_of(lens: Any) -> dict[tuple[int, int], int]:
    """(token, layer of 4): level of each cell that is painted, once."""
    found: dict[tuple[int, int], int] = {}
    drawn = lens.evaluate(
        """figure => [...figure.querySelectorAll('.cells path')].map(path =>
            [path.closest('svg').dataset.start, path.getAttribute('class'), path.getAttribute('d')])"""
    )
    for start, name, d in drawn:
        for x, row, width in re.findall(r"M(\d+) (\d+)h(\d+)", d):
            for i in range(int(x), int(x) + int(width)):
                assert (int(start) + i, 3 - int(row)) not in found
                found[int(start) + i, 3 - int(row)] = int(name.removeprefix("h"))
    return found


def test_the_heatmap_is_painted_by_rank_or_by_probability(open_page: Any, html: str, report: Any) -> None:
    page = open_page(html)
    lens = page.locator("figure.lens").first
    every = {
        (i, layer): cell
        for i, token in enumerate(report.branches[0].tokens)
        for layer, cell in enumerate(token.layers)
    }
    by_rank = {at: rank_level(cell.rank) for at, cell in every.items()}
    assert cells_of(lens) == by_rank
    lens.locator("select").select_option("by-p")
    # The page has probabilities in ten-thousandths: at a bound, a level may be the next.
    found = cells_of(lens)
    assert found.keys() == every.keys()
    for at, cell in every.items():
        rounded = round(10_000 * math.exp(cell.logprob))
        bounds = [9000, 5000, 2500, 1000, 300, 100, 10]
        assert found[at] == next((level for level, bound in enumerate(bounds) if rounded >= bound), 7)
    assert "\u2265 90%" in lens.locator(".legend").inner_text()
    lens.locator("select").select_option("by-rank")
    assert cells_of(lens) == by_rank and "top 30" in lens.locator(".legend").inner_text()


def test_the_curve_chooses_the_token_under_the_pointer(open_page: Any, html: str) -> None:
    page = open_page(html)
    svg = page.locator("figure.curve svg").first
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 60.5 / 120, box["y"] + 30)
    assert selected(page) == [WORDS[60]]
    assert page.get_attribute("figure.curve .cursor >> nth=0", "d") == "M60.5 0V100"


def test_on_a_phone_the_panel_can_be_put_away(open_page: Any, html: str) -> None:
    page = open_page(html, viewport={"width": 375, "height": 700})
    assert not page.locator("#panel").is_visible()
    page.locator(".strip span").nth(5).click()
    assert heading(page) == "\u00b7word5"
    assert page.locator("#panel").bounding_box()["height"] < 0.5 * 700
    page.get_by_role("button", name="close").click()
    assert not page.locator("#panel").is_visible()


def test_a_link_leads_to_its_token(open_page: Any, html: str) -> None:
    page = open_page(html)
    page.locator(".strip").nth(1).locator("span").nth(2).click()
    address = page.url
    assert address.endswith("#1.2")
    page.goto("about:blank")
    page.goto(address)
    assert selected(page) == [WORDS[102]] and heading(page) == "\u00b7word102"


def test_colours_are_those_of_the_probabilities(open_page: Any, html: str, report: Any) -> None:
    page = open_page(html)
    classes = page.eval_on_selector_all(".strip >> nth=0 >> span", "all => all.map(e => e.className)")
    for token, name in zip(report.branches[0].tokens, classes, strict=True):
        level = probability_level(token.logprob)
        assert name.split()[0] == ("u" if level is None else f"p{level}")


def test_paper_has_the_tables_and_no_panel(open_page: Any, html: str) -> None:
    page = open_page(html)
    assert not page.locator("table.tokens").first.is_visible()
    page.emulate_media(media="print")
    assert page.locator("table.tokens").first.is_visible() and page.locator(".defaults").is_visible()
    assert (
        not page.locator("#panel").is_visible() and not page.locator("figure.lens select").first.is_visible()
    )
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    for name in (".bands svg", "figure.curve svg"):
        assert page.locator(name).first.bounding_box()["width"] > 400
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000


def test_paper_is_light_also_in_a_dark_browser(open_page: Any, html: str) -> None:
    page = open_page(html, color_scheme="dark")
    page.emulate_media(media="print")
    assert (
        page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bg')").strip() == "#fff"
    )


def test_without_scripts_the_page_still_tells(open_page: Any, html: str) -> None:
    page = open_page(html, java_script_enabled=False)
    assert "word5" in page.inner_text(".strip >> nth=0")
    page.locator("details.all summary").first.click()
    assert "\u00b7word5" in page.inner_text("table.tokens >> nth=0")
    assert "Without scripts" in page.inner_text("#panel")


def test_it_is_named_for_those_who_listen(open_page: Any, html: str, report: Any) -> None:
    """Every element that takes the focus has a role and a name."""
    page = open_page(html)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('[tabindex], a, select, summary')].filter(e =>
            !(e.getAttribute('aria-label') || e.textContent.trim())).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert page.get_attribute(".strip >> nth=0", "role") == "listbox"
    assert page.get_attribute("#spoken", "role") == "status"
    page.locator(".strip span").nth(50).click()
    said = page.text_content("#spoken")
    assert said.startswith("\u00b7word50, ") and f"rank {report.branches[0].tokens[50].rank + 1}" in said
    levels = page.evaluate("[...document.querySelectorAll('main h2, main h3, h1')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
