"""Stop strings: whatever the pieces in which a text comes, the match is the one that is complete first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import UsageError
from pellucid.text.stop import StopStrings


def brute_force(strings: list[str], text: str) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        found = [s for s in strings if text[:end].endswith(s)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


words = st.text(alphabet="ab\n", min_size=1, max_size=5)


@settings(max_examples=600, deadline=None)
@given(st.lists(words, max_size=4), st.lists(st.text(alphabet="ab\n", max_size=4), max_size=12))
def test_pieces_give_what_one_search_gives(strings: list[str], deltas: list[str]) -> None:
    stops = StopStrings(strings)
    shown, matched, seen = "", None, ""
    for delta in deltas:
        safe, matched = stops.push(delta)
        shown += safe
        seen += delta
        if matched is not None:
            break
        # Nothing is held back without need: what is held begins some stop string.
        held = seen[len(shown) :]
        assert held == "" or any(s.startswith(held) and s != held for s in strings)
    if matched is None:
        shown += stops.finish()
    assert (shown, matched) == brute_force(strings, "".join(deltas))


def test_after_a_match_nothing_is_given() -> None:
    stops = StopStrings(["END"])
    assert stops.push("abENDcd") == ("ab", "END")
    assert stops.push("more") == ("", "END")
    assert stops.finish() == ""


@pytest.mark.parametrize("strings", [[""], ["a", ""], "END", [3]])
def test_wrong_strings_are_refused(strings: list[str]) -> None:
    with pytest.raises(UsageError):
        StopStrings(strings)
