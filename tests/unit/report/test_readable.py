"""Characters that are spread over tokens: the text of a report can be read, and hides no byte."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.report.page_data import TokenView
from pellucid.report.token_view import readable


@dataclass
class Bytes:
    """A tokenizer of which only the bytes are asked for."""

    tokens: list[bytes]

    def token_bytes(self, token_id: int) -> bytes:
        return self.tokens[token_id]


def shown(*tokens: bytes) -> list[str]:
    views = [
        TokenView(i, i, raw.decode("utf-8", "backslashreplace"), "drawn") for i, raw in enumerate(tokens)
    ]
    made = readable(views, cast(Any, Bytes(list(tokens))))
    return [view.shown or view.text for view in made]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([b"a", b" b"], ["a", " b"]),
        ([b"\xf0\x9f", b"\x8e\x89"], ["\\xf0\\x9f", "\U0001f389"]),
        ([b"\xe4", b"\xbd", b"\xa0!"], ["\\xe4", "\\xbd", "\u4f60!"]),
        ([b"ok\xe4", b"\xbd\xa0\xe4", b"\xbd\xa0"], ["ok\\xe4", "\u4f60\\xe4", "\u4f60"]),
        ([b"\xe4", b"hello"], ["\\xe4", "hello"]),
        ([b"\xff", b"a"], ["\\xff", "a"]),
        ([b"\xe4", b"\xff", b"b"], ["\\xe4", "\\xff", "b"]),
        ([b"\xe4", b"\xe4\xbd\xa0"], ["\\xe4", "\u4f60"]),
    ],
)
def test_the_last_token_of_a_character_shows_it(tokens: list[bytes], expected: list[str]) -> None:
    assert shown(*tokens) == expected


@given(st.text(min_size=1), st.data())
def test_any_cut_of_a_text_shows_all_its_characters(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-8")
    cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=12))})
    tokens = [raw[a:b] for a, b in pairwise(cuts)]
    expected = ""
    for a, b in pairwise(cuts):
        before, after = (len(raw[:cut].decode("utf-8", "ignore")) for cut in (a, b))
        whole = len(text[:after].encode("utf-8"))
        expected += text[before:after] + "".join(f"\\x{byte:02x}" for byte in raw[max(a, whole) : b])
    assert "".join(shown(*tokens)) == expected


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=8))
def test_no_byte_is_lost_whatever_they_are(tokens: list[bytes]) -> None:
    """Each token shows characters that end in it, or its bytes: never nothing."""
    assert all(shown(*tokens))
