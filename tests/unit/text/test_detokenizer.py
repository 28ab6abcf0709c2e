"""Streaming gives what decoding at once gives, for any ids of any vocabulary."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from text_helpers import VOCABULARIES, spm_pieces, write_spm

from pellucid.errors import UsageError
from pellucid.text.detokenizer import Detokenizer
from pellucid.text.tokenizer import Tokenizer, load_tokenizer


def sequences(tokenizer: Tokenizer, count: int, seed: int) -> list[list[int]]:
    """Random ids; half of the sequences favour tokens that are a part of a character, and control tokens."""
    rng = random.Random(seed)
    parts = []
    for token_id in rng.sample(range(tokenizer.vocabulary_size), min(6000, tokenizer.vocabulary_size)):
        try:
            tokenizer.token_bytes(token_id).decode()
        except UnicodeDecodeError:
            parts.append(token_id)
    odd = [*parts, *list(tokenizer.special_ids)[:20]] or [0]
    return [
        [
            rng.choice(odd) if i % 2 and rng.random() < 0.7 else rng.randrange(tokenizer.vocabulary_size)
            for _ in range(rng.randint(0, 24))
        ]
        for i in range(count)
    ]


def check(tokenizer: Tokenizer, ids: list[int]) -> None:
    for skip_special in (False, True):
        for continues in (False, True):
            stream = Detokenizer(tokenizer, skip_special=skip_special, continues=continues)
            pieces = [stream.push(token_id) for token_id in ids] + [stream.finish()]
            whole = tokenizer.decode(ids, skip_special=skip_special, continues=continues)
            assert "".join(pieces) == whole, ids


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_stream_is_decode(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    for ids in sequences(tokenizer, 1500, 5):
        check(tokenizer, ids)


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_a_tokens_text_says_its_bytes(path: Path) -> None:
    says_its_bytes(load_tokenizer(path))


def test_a_byte_tokens_text_says_its_byte(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path)
    says_its_bytes(tokenizer)
    for piece, text in (("<0xE2>", "\\xe2"), ("<0x41>", "A"), ("é", "é")):
        token_id = tokenizer.id_of(piece)
        assert token_id is not None and tokenizer.token_text(token_id) == text


def says_its_bytes(tokenizer: Tokenizer) -> None:
    """No byte is lost or added; what adds nothing to a text has its piece."""
    for token_id in range(tokenizer.vocabulary_size):
        raw = tokenizer.token_bytes(token_id)
        if b"\\" in raw:
            continue  # a backslash of its own
        said = tokenizer.token_text(token_id).encode()
        back = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), said)
        assert back == raw or (not raw and said.decode() == tokenizer.piece(token_id))


def spm(tmp_path: Path, **more: object) -> Tokenizer:
    pieces = spm_pieces([("▁a", -1.0), ("▁", -2.0), ("▁▁", -1.5), ("b", -3.0), ("é", -3.0), ("a", -2.5)])
    return load_tokenizer(write_spm(tmp_path / "spm.gguf", pieces, **more))


def test_stream_is_decode_with_byte_fallback(tmp_path: Path) -> None:
    for space in (True, False):
        tokenizer = spm(tmp_path, add_space_prefix=space)
        for ids in sequences(tokenizer, 3000, 6):
            check(tokenizer, ids)
            plain = [i for i in ids if i not in tokenizer.special_ids]
            expected = b"".join(tokenizer.token_bytes(i) for i in plain)
            if space:
                expected = expected.removeprefix(b" ")
            assert tokenizer.decode(ids, skip_special=True) == expected.decode("utf-8", "replace")


def test_the_space_of_the_tokenizer_and_that_of_the_text(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path)
    a = tokenizer.id_of("▁a")
    assert a is not None
    assert tokenizer.encode("a") == [1, a]
    assert tokenizer.decode([a]) == "a"
    assert tokenizer.decode([1, a]) == "<s>a"
    assert tokenizer.decode([1, a], skip_special=True) == "a"
    assert tokenizer.decode([a], continues=True) == " a"
    assert tokenizer.decode(tokenizer.encode("  a"), skip_special=True) == "  a"


def test_a_character_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path)
    smile = [tokenizer.id_of(f"<0x{byte:02X}>") for byte in "🙂".encode()]
    stream = Detokenizer(tokenizer)
    assert [stream.push(i) for i in smile if i is not None] == ["", "", "", "🙂"]
    stream.push(smile[0] or 0)
    assert stream.finish() == "\ufffd"


def test_ids_outside_of_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path)
    for wrong in (-1, tokenizer.vocabulary_size, 1 << 40):
        for call in (tokenizer.token_bytes, tokenizer.piece, lambda i: tokenizer.decode([0, i])):
            with pytest.raises(UsageError, match="outside the vocabulary"):
                call(wrong)
