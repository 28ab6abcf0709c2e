"""Text into HTML: nothing of a token acts, nothing of it is invisible."""

from __future__ import annotations

import html
import json
import math
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from report_pages import HOSTILE

from pellucid.report.html import (
    PROBABILITY_LEVELS,
    RANK_LEVELS,
    data_script,
    escape,
    number,
    percent,
    probability_level,
    rank_level,
    show,
    token_label,
)

# Also lone surrogates, which a byte-level vocabulary may give.
ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.sampled_from(HOSTILE)


@given(ANY_TEXT)
def test_what_is_shown_has_nothing_invisible(text: str) -> None:
    shown = show(text)
    shown.encode("utf-8")  # no lone surrogate is left
    for character in shown:
        kind = unicodedata.category(character)
        assert kind not in ("Cc", "Cs", "Zl", "Zp")
        assert kind != "Cf" or character in "\u200c\u200d"


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    assert show(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", "a\u21b5b\u21e5c"),
        ("\x1b[0m", "\\x1b[0m"),
        ("\x00", "\\x00"),
        ("a\u202eb", "a\\u202eb"),
        ("\ud83d", "\\ud83d"),
        ("\u200d", "\\u200d"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
        ("\U0001ffff", "\\u1ffff"),
    ],
)
def test_how_the_invisible_is_named(text: str, shown: str) -> None:
    assert show(text) == shown


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" the", "\u00b7the"),
        ("  ", "\u00b7\u00b7"),
        ("a b ", "a b\u00b7"),
        ("", "\u2205"),
        ("\u0301", "\u25cc\u0301"),
        ("x" * 30, "x" * 23 + "\u2026"),
    ],
)
def test_labels(text: str, label: str) -> None:
    assert token_label(text) == label


@given(ANY_TEXT)
def test_a_label_is_short_and_never_empty(text: str) -> None:
    assert 1 <= len(token_label(text)) <= 24


@given(ANY_TEXT)
@example("\"'<>&")
def test_escaped_text_is_text(text: str) -> None:
    escaped = escape(show(text))
    assert not set("<>\"'") & set(escaped)
    assert html.unescape(escaped) == show(text)


@given(
    st.recursive(
        ANY_TEXT | st.integers() | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_a_data_block_ends_where_it_should_and_gives_the_value_back(value: object) -> None:
    block = data_script("data", value)
    inside = block.removeprefix('<script type="application/json" id="data">').removesuffix("</script>")
    assert len(block) - len(inside) == len('<script type="application/json" id="data"></script>')
    assert not set("<>&\u2028\u2029") & set(inside)
    assert json.loads(inside) == value


def test_numbers_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        data_script("data", [math.nan])


def test_levels_are_where_their_bounds_say() -> None:
    assert probability_level(None) is None
    assert probability_level(0.0) == 0
    assert probability_level(-math.inf) == len(PROBABILITY_LEVELS)
    for level, bound in enumerate(PROBABILITY_LEVELS):
        assert probability_level(math.log(bound) + 1e-9) == level
        assert probability_level(math.log(bound) - 1e-9) == level + 1
    for level, bound in enumerate(RANK_LEVELS):
        assert rank_level(bound) == level
        assert rank_level(bound + 1) == level + 1


@given(st.floats(-1e12, 1e12), st.integers(1, 6))
def test_a_number_has_the_digits_asked_for(value: float, digits: int) -> None:
    shown = float(number(value, digits))
    exponent = math.floor(math.log10(abs(value))) if value else 0
    assert abs(shown - value) <= 0.5000001 * 10 ** (exponent + 1 - digits)


@pytest.mark.parametrize(
    ("logprob", "shown"),
    [
        (0.0, "100%"),
        (-1e-9, ">99.9%"),
        (math.log(0.5), "50.0%"),
        (math.log(0.001), "0.10%"),
        (math.log(1e-6), "<0.01%"),
        (-math.inf, "0%"),
        (None, ""),
    ],
)
def test_percentages(logprob: float | None, shown: str) -> None:
    assert percent(logprob) == shown
