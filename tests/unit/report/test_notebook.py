"""Displays of notebooks: harmless fragments that say what the objects hold."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import HOSTILE, Page

from pellucid.report.html import percent, show
from pellucid.report.notebook import Piece, bars, heatmap, note, table, token_strip

ANY_TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=12)
TAGS = {"div", "span", "table", "tr", "th", "td", "code", "svg", "path"}


def text_of(html: str) -> str:
    import html as entities

    return entities.unescape(re.sub(r"<[^<>]*>", "", html))


def check_harmless(html: str) -> None:
    page = Page(html)
    assert not page.comments and not page.scripts
    for tag, attributes in page.elements:
        assert tag in TAGS
        assert not any(name.startswith("on") or name in ("src", "href", "id", "class") for name in attributes)
    html.encode("utf-8")


@given(st.lists(ANY_TEXT, max_size=6))
def test_whatever_the_texts_say_a_fragment_is_harmless_and_shows_them(texts: list[str]) -> None:
    strip = token_strip(Piece(text, -0.5, title=text) for text in texts)
    rows = table(texts, [texts])
    for fragment in (strip, rows, note("".join(texts)), bars((text, -1.0) for text in texts)):
        check_harmless(fragment)
    assert text_of(strip).replace("\u21b5\n", "\u21b5") == "".join(map(show, texts))
    assert text_of(rows) == 2 * "".join(map(show, texts))


def test_a_strip_shades_by_probability() -> None:
    strip = token_strip(
        [Piece("a", 0.0), Piece("b", math.log(0.25)), Piece("c", -math.inf), Piece("d", dim=True)]
    )
    assert re.findall(r"rgba\(255,140,0,([\d.]+)\)", strip) == ["0.00", "0.45", "0.60"]
    assert strip.endswith('<span style="opacity:.6">d</span></div>')


def test_bars_are_as_long_as_their_tokens_are_probable() -> None:
    drawn = bars([("a", math.log(0.5)), ("b", math.log(0.125))])
    assert re.findall(r"width:([\d.]+)%", drawn) == ["50.0", "12.5"]
    assert percent(math.log(0.125)) in drawn


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (5, 2)])
def test_a_heatmap_paints_each_cell_in_its_level(rows: int, columns: int) -> None:
    values = np.random.default_rng(rows).random((rows, columns)).astype(np.float32)
    values[0, 0] = np.nan if rows > 1 else values[0, 0]
    drawn = heatmap(values, "a caption")
    check_harmless(drawn)
    painted = np.zeros((rows, columns))
    for level, path in re.findall(r'fill-opacity="([\d.]+)" d="(.*?)"', drawn):
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1H\1z", path):
            painted[rows - 1 - int(y), int(x) : int(x) + int(width)] += float(level)
    expected = np.nan_to_num(np.round(16 * values / np.nanmax(values)) / 16)
    assert np.allclose(painted, expected, atol=0.006)
    assert "a caption" in drawn and "one of" not in drawn


def test_a_large_heatmap_is_thinned_and_says_so() -> None:
    drawn = heatmap(np.random.default_rng(1).random((65, 3000)), "wide")
    assert "one of 2 rows and one of 12 columns is drawn" in drawn and len(drawn) < 200_000
    assert 'width="2500"' in drawn


def test_a_heatmap_of_nothing_finite() -> None:
    assert "<path" not in heatmap(np.full((2, 2), np.nan), "empty")


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory):
    from tiny_checkpoints import make

    from pellucid import LLM

    path: Path = make(tmp_path_factory.mktemp("notebook"), "llama", "gguf", "F32")
    with LLM(path, num_threads=2) as loaded:
        yield loaded


def test_a_generation_shows_its_text_and_its_branches(llm) -> None:
    generation = llm.begin("Hello <b>", temperature=0.9, seed=3, max_tokens=6, ignore_eos=True, logprobs=0)
    generation.run(3)
    generation.force(65)
    computed = generation.cost.computed
    alone = generation._repr_html_()
    check_harmless(alone)
    texts = [generation.token_text(token) for token in generation.token_array.tolist()]
    spans = [text_of(span) for span in re.findall(r"<span.*?</span>", alone, re.S)]
    assert [span.replace("\u21b5\n", "\u21b5") for span in spans] == [show(text) for text in texts]
    assert alone.count("outline:1px dashed") == 1  # the forced one
    assert alone.count("rgba(") == 4 and "\u2514" not in alone
    assert "4 after them; goes on" in text_of(alone)
    fork = generation.fork(seed=9)
    fork.branch.label = "<other>"
    fork.run(2)
    both = text_of(generation._repr_html_())
    check_harmless(generation._repr_html_())
    assert (
        f"<other>: {len(fork)} tokens" in both and both.count("\u2514") == 2 and both.count("this one") == 1
    )
    assert generation.cost.computed == computed, "a display computes nothing"


def test_a_capture_shows_its_sites_and_what_is_missing(llm) -> None:
    from pellucid import Capture

    captured = llm.generate(
        "Hello", max_tokens=4, ignore_eos=True, capture=Capture(sites=("resid_post", "mlp_out"))
    ).captured
    shown = captured._repr_html_()
    check_harmless(shown)
    assert "resid_post" in text_of(shown) and "mlp_out" in text_of(shown)
    assert shown.count("<svg") == 1 and f'viewBox="0 0 {len(captured)} {captured.num_layers}"' in shown
    top = float(np.log1p(captured.norms("resid_post")).max())
    assert f"strongest: {top:.4g}".rstrip("0") in text_of(shown)


def test_a_lens_shows_where_each_token_settled(llm) -> None:
    lens = llm.lens("Hello there, all of you", k=1)
    shown = lens._repr_html_()
    check_harmless(shown)
    for position, column in zip(lens.positions.tolist(), lens.settled().tolist(), strict=True):
        layer = lens.layers[column] if column < len(lens.layers) else "never"
        assert re.search(rf"<td[^>]*>{position}</td><td[^>]*>\d+</td><td[^>]*>{layer}</td>", shown)
    strongest = re.search(r"strongest: ([\d.]+?)position", text_of(shown))
    assert strongest is not None
    assert float(strongest[1]) == pytest.approx(float(np.exp(lens.logprobs).max()), rel=1e-3)
    long = llm.lens([65] * 60, k=1)._repr_html_()
    assert "10 more rows" in long and long.count("<tr>") == 51


def test_a_result_shows_each_token_with_its_alternatives(llm) -> None:
    result = llm.generate("Hello", max_tokens=3, ignore_eos=True, logprobs=2, n=2, temperature=1.0, seed=1)
    shown = result._repr_html_()
    check_harmless(shown)
    assert shown.count("rgba(") == 6 and shown.count("p = ") == 6
    assert shown.count("finished: length") == 2
