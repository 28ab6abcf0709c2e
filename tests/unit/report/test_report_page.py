"""The page as a whole: hostile text stays text, the policy holds, drawings and data say what the report says."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_pages import HOSTILE, Page, make_report

from pellucid.report.heatmap import BAND, heatmap
from pellucid.report.html import PROBABILITY_LEVELS, rank_level, show
from pellucid.report.page import render
from pellucid.report.page_data import BranchView, Report, TokenView
from pellucid.report.tree import tree

TAGS = re.findall(
    r"\S+",
    "html head meta link title style body header h1 h2 h3 dl div dt dd aside main section nav ul li a small q p span "
    "figure figcaption svg path g text details summary table thead tbody tr th td b script noscript code",
)
ATTRIBUTES = re.findall(
    r"\S+",
    "lang charset http-equiv content name rel href class id data-b data-first data-start dir viewbox "
    "preserveaspectratio role aria-label aria-live aria-hidden d width height transform y scope type",
)

RUN = r"M(\d+) (\d+)h(\d+)"  # of cells: from, row, how many

ANY_TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ANY_TEXT, min_size=1, max_size=8), ANY_TEXT)
def test_whatever_a_token_says_the_page_is_the_same_markup(texts: list[str], name: str) -> None:
    """The elements of a page with these texts are those of the same page with a harmless letter for each."""
    hostile = Page(render(make_report(texts, name=name, forks=[(0, 1)] if len(texts) > 1 else [])))
    harmless = Page(
        render(make_report(["a"] * len(texts), name="a", forks=[(0, 1)] if len(texts) > 1 else []))
    )
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert not hostile.comments
    for tag, attributes in hostile.elements:
        assert tag in TAGS
        assert set(attributes) <= set(ATTRIBUTES), attributes
    spans = [span.replace("\u21b5\n", "\u21b5") for span in hostile.spans]
    expected = [show(text) or "\u2205" for text in texts]
    assert spans == expected + expected[1:]


def test_the_page_in_bytes_is_utf8_whatever_the_tokens() -> None:
    render(make_report(HOSTILE, forks=[(0, 3)])).encode("utf-8")


def test_nothing_is_loaded_and_the_policy_names_exactly_what_runs() -> None:
    page = Page(render(make_report(["a", "b", "c", "d"])))
    (policy,) = [found["content"] for tag, found in page.elements if found.get("http-equiv")]
    assert policy is not None and policy.startswith("default-src 'none';")
    (_, data), (kind, script) = page.scripts
    assert kind == {} and data
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "unsafe" not in policy
    for _, attributes in page.elements:
        assert "src" not in attributes and "style" not in attributes
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    html = render(make_report(["a", "b"]))
    assert not re.search(r"https?:|url\(|@import|//[a-z]", html.replace("// ", ""))


def decoded(page: Page) -> list[list[dict[str, Any]]]:
    """The tokens of the data block in words; the format is that of page_json's docstring."""
    data = page.data
    texts, names = data["texts"], data["stages"]
    found = []
    for branch in data["branches"]:
        rows = []
        for number, fields in enumerate(branch["tokens"]):
            text, token_id, kind, logprob, rank, entropy, top, choice, lens, seconds, said = (
                fields + [0] * 5
            )[:11]
            row = {
                "position": branch["positions"][number] if "positions" in branch else branch["at"] + number,
                "text": texts[text],
                "id": token_id,
                "kind": texts[kind],
            }
            row |= {"logprob": logprob, "rank": rank, "entropy": entropy, "seconds": seconds}
            row["top"] = [(texts[a], p, q) for a, p, q in zip(*[iter(top or [])] * 3, strict=True)]
            row["lens"] = [(r, p, texts[t], q) for r, p, t, q in zip(*[iter(lens or [])] * 4, strict=True)]
            row["said"] = [texts[each] for each in said or []]
            if choice:
                row["margin"], row["runner_up"] = choice[4], None if choice[2] < 0 else texts[choice[2]]
                row["stages"] = [
                    (names[s[0]], s[1], s[2], s[4]) for s in zip(*[iter(choice[7])] * 6, strict=True)
                ]
            rows.append(row)
        found.append(rows)
    return found


def near(a: Any, b: float | None, infinite: Any = None) -> bool:
    if b is None or not math.isfinite(b):
        return bool(a == infinite)
    return math.isclose(a, b, rel_tol=6e-5, abs_tol=1e-12)


def test_the_data_block_has_every_number_of_the_report() -> None:
    report = make_report([f"t{i}" for i in range(30)] + HOSTILE, forks=[(0, 5)])
    for branch, rows in zip(report.branches, decoded(Page(render(report))), strict=True):
        for token, row in zip(branch.tokens, rows, strict=True):
            assert (row["position"], row["id"], row["kind"]) == (token.position, token.token_id, token.kind)
            assert row["text"] == show(token.text)
            assert row["rank"] == (0 if token.rank is None else token.rank + 1)
            assert near(row["logprob"], token.logprob) and near(row["entropy"], token.entropy)
            assert near(row["seconds"], round(token.seconds or 0, 6))
            assert [each[0] for each in row["top"]] == [show(each.text) for each in token.top]
            for (_, p, q), each in zip(row["top"], token.top, strict=True):
                assert near(p, each.logprob) and near(
                    q, each.processed, None if each.processed is None else "x"
                )
            for (rank, p, top, q), cell in zip(row["lens"], token.layers, strict=True):
                assert (rank, top) == (cell.rank, show(cell.top))
                assert p == pytest.approx(1e4 * math.exp(cell.logprob), abs=0.51)
                assert q == pytest.approx(1e4 * math.exp(cell.top_logprob), abs=0.51)
            assert row["said"] == ([show(token.note), *token.flags] if token.note else [])
            if token.choice is not None:
                assert near(row["margin"], token.choice.margin, -1)
                assert row["runner_up"] == (None if token.runner_up is None else show(token.runner_up))
                assert row["stages"] == [
                    (s.name, s.removed, s.left, -s.moved if s.reordered else s.moved)
                    for s in token.choice.stages
                ]


@pytest.mark.parametrize(
    ("num_tokens", "num_layers"), [(1, 1), (5, 3), (BAND, 4), (BAND + 1, 2), (3 * BAND + 7, 5)]
)
def test_the_heatmap_paints_each_cell_once_in_its_level(num_tokens: int, num_layers: int) -> None:
    report = make_report([f"t{i}" for i in range(num_tokens + 1)], num_layers=num_layers, num_prompt=1)
    tokens = report.branches[0].tokens
    drawn = heatmap(tokens, report.layer_names, 0)
    painted: dict[tuple[int, int], int] = {}
    for start, cells in re.findall(r'<svg data-start="(\d+)".*?<g class="cells".*?>(.*?)</g>', drawn, re.S):
        for level, d in re.findall(r'<path class="h(\d)" d="(.*?)"/>', cells):
            assert re.sub(RUN, "", d) == ""
            for x, row, width in re.findall(RUN, d):
                for i in range(int(x), int(x) + int(width)):
                    cell = int(start) + i, num_layers - 1 - int(row)
                    assert cell not in painted
                    painted[cell] = int(level)
    expected = {
        (i, layer): rank_level(cell.rank)
        for i, token in enumerate(tokens)
        for layer, cell in enumerate(token.layers)
    }
    assert len(expected) == num_tokens * num_layers
    assert painted == expected


def test_the_curves_pass_through_the_values() -> None:
    tokens = make_report([f"t{i}" for i in range(40)], num_prompt=10).branches[0].tokens
    page = render(Report("r", (BranchView("b", tokens),)))
    figures = re.findall(r'<figure class="curve".*?</figure>', page, re.S)
    assert len(figures) == 3
    known = [token.logprob for token in tokens if token.logprob is not None]
    top = max([-p for p in known] + [token.entropy or 0 for token in tokens])
    (line,) = re.findall(r'<path class="c1" d="(.*?)"/>', figures[0])
    ys = [float(y) for y in re.findall(r"(?:M\d+ |V)([\d.]+)h1", line)]
    assert ys == pytest.approx([100 * (1 + p / top) for p in known], abs=0.051)
    (area,) = re.findall(r'<path class="c0" d="(.*?)"/>', figures[0])
    tops = {int(x): float(y) for x, y in re.findall(r"M(\d+) 100V([\d.]+)h1V100z", area)}
    expected = {i: 100 * (1 - token.entropy / top) for i, token in enumerate(tokens) if token.entropy}
    assert tops == pytest.approx(expected, abs=0.051)
    assert '<path class="border" d="M10 0V100"/>' in figures[0]


def test_the_tree_is_nested_as_the_branches_are() -> None:
    def branch(name: str, parent: int | None = None, sibling: bool = False) -> BranchView:
        return BranchView(name, (TokenView(3, 1, "<b>", "drawn"),), parent, 3, sibling)

    branches = [branch("a"), branch("b", 0), branch("c", 1), branch("d", 0), branch("e", 0, sibling=True)]
    drawn = re.sub(r' <small>.*?</q>|<a href="#branch-\d">|</a>', "", tree(branches))
    assert drawn == (
        '<nav class="tree" aria-label="branches"><ul><li>a<ul><li>b<ul><li>c</li></ul></li><li>d</li></ul></li>'
        "<li>e</li></ul></nav>"
    )
    assert tree(branches[:1]) == ""


def test_a_long_chain_of_forks_is_no_recursion() -> None:
    names = [BranchView(f"b{i}", (), None if i == 0 else i - 1, i) for i in range(3000)]
    drawn = tree(names)
    assert drawn.count("<ul>") == drawn.count("</ul>") == 3000 and drawn.count("<li>") == drawn.count("</li>")


def test_a_page_of_500_tokens_with_31_layers_is_smaller_than_a_megabyte() -> None:
    words = [f" word{i}" for i in range(400)]
    report = make_report([words[i * 7 % 400] for i in range(500)], num_layers=31, num_prompt=50)
    assert len(render(report).encode()) < 1_000_000


def test_positions_that_do_not_count_up_are_kept() -> None:
    """A context that slides begins again nearer to its front."""
    tokens = tuple(TokenView(position, 1, "a", "drawn", -1.0) for position in (5, 6, 7, 3, 4, 5))
    (rows,) = decoded(Page(render(Report("slid", (BranchView("b", tokens),)))))
    assert [row["position"] for row in rows] == [5, 6, 7, 3, 4, 5]


def test_pages_with_little_to_show() -> None:
    empty = Page(render(Report("nothing", ())))
    assert not empty.spans
    bare = render(Report("bare", (BranchView("b", (TokenView(0, 1, "a", "prompt"),)),)))
    assert "<figure" not in bare and "Settings" not in bare and Page(bare).spans == ["a"]


def test_every_level_has_its_colours_in_both_themes_and_on_paper() -> None:
    from pellucid.report.page import asset

    style = asset("page.css")
    for level in range(len(PROBABILITY_LEVELS) + 1):
        assert style.count(f"--p{level}:") == style.count(f"--h{level}:") == 3


def luminance(color: str) -> float:
    """Relative, of "#rgb" or "#rrggbb": WCAG 2.2."""
    digits = color.removeprefix("#")
    pairs = [digits[i] * 2 for i in range(3)] if len(digits) == 3 else re.findall("..", digits)
    parts = [int(pair, 16) / 255 for pair in pairs]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_is_readable_on_every_colour_that_it_stands_on() -> None:
    """WCAG AA asks for 4.5 to 1."""
    from pellucid.report.page import asset

    themes = re.findall(r":root\{(.*?)\}", asset("page.css"), re.S)
    assert len(themes) == 3
    for theme in themes:
        color = dict(re.findall(r"(--[a-z0-9]+):(#[0-9a-f]+)", theme))
        for ground in ["--bg", "--card", *(f"--p{level}" for level in range(8))]:
            assert contrast(color["--fg"], color[ground]) >= 4.5, (theme[:40], ground)
        for ground in ("--bg", "--card"):
            assert contrast(color["--dim"], color[ground]) >= 4.5, (theme[:40], ground)
            assert contrast(color["--link"], color[ground]) >= 4.5, (theme[:40], ground)
