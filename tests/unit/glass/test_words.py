"""Words for plain text: nothing steers a terminal, nothing is lost in wrapping, lines fit."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.glass.words import cells, counted, cut, flowed, padded, percent, quoted, unbroken, wrapped

PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)


@given(PLAIN)
def test_quoted_is_one_printable_line(text):
    shown = quoted(text, 1000)
    assert shown[0] == shown[-1] == '"' and shown.isprintable()
    if text.isprintable():
        assert shown[1:-1] == text
    elif "\\" not in text:  # nothing is lost: the escapes give the text back
        escapes = re.compile(r"\\(?:U[0-9a-f]{8}|u[0-9a-f]{4}|x[0-9a-f]{2}|[ntr])")
        back = escapes.sub(lambda m: m[0].encode().decode("unicode_escape"), shown[1:-1])
        assert back == text


@given(PLAIN, st.integers(1, 30))
def test_cut_fits(text, most):
    assert cells(cut(text, most)) <= most
    assert cut(text, most) == text or cut(text, most).endswith("\u2026")


@given(PLAIN, st.integers(0, 50))
def test_padded(text, width):
    assert padded(text, width).startswith(text)
    assert cells(padded(text, width)) == max(width, cells(text))


def test_cells_of_wide_and_combining_characters():
    assert [cells(t) for t in ("abc", "日本", "e\u0301", "")] == [3, 4, 1, 0]


WORDS = st.lists(st.text("abc日", min_size=1, max_size=12), max_size=30)


@given(WORDS, st.integers(30, 60), st.integers(0, 5), st.integers(0, 5))
def test_wrapped_loses_nothing_and_fits(words, width, indent, hang):
    lines = wrapped(" ".join(words), width, indent, hang)
    assert " ".join(lines).split() == words
    assert all(cells(line) <= width for line in lines)


@given(WORDS, st.integers(1, 60))
def test_flowed_breaks_only_where_it_must(words, width):
    lines = flowed("head: ", words, width, "  ", 4)
    assert " ".join(lines).split() == ["head:", *words]
    for line in lines[1:]:
        assert cells(line) <= width or len(line.split()) == 1


def test_an_unbroken_word_keeps_its_spaces():
    text = f"aaaa bbbb {unbroken(quoted(' c d'))} e"
    assert wrapped(text, 14) == ["aaaa bbbb", '" c d" e']


@pytest.mark.parametrize(
    "p, shown",
    [
        (1.0, "100%"),
        (0.0, "0%"),
        (0.5, "50.0%"),
        (0.0712, "7.1%"),
        (0.00123, "0.12%"),
        (6.01e-7, "6e-5%"),
        (0.99987, "99.9870%"),
        (1 - 1e-9, "almost 100%"),
    ],
)
def test_percent(p, shown):
    assert percent(p) == shown


@given(st.floats(0, 1))
def test_percent_is_close(p):
    """Never off by more than a tenth of the value, nor by a twentieth of a percent; certainty only where it is."""
    shown = percent(p)
    if shown == "almost 100%":
        assert 0.999999 < p < 1
        return
    value = float(shown.rstrip("%")) / 100
    assert abs(value - p) <= max(0.5 * p if p < 1e-4 else 0.06 * p, 0) + 1e-320
    assert (value == 1) == (p == 1)


def test_counted():
    assert [counted(n, "row") for n in (0, 1, 2, 1234)] == ["0 rows", "1 row", "2 rows", "1,234 rows"]
