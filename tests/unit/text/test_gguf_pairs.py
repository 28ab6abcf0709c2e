"""GGUF vocabularies: the ids of the shared test pairs, and exact round trips."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from text_helpers import TOKENIZERS, VOCABULARIES, WHY_ABSENT, random_text

from pellucid.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.skipif(not VOCABULARIES, reason=WHY_ABSENT)
SEPARATOR = "\n__ggml_vocab_test__\n"


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_ids_of_the_pairs(path: Path) -> None:
    with open(f"{path}.inp", encoding="utf-8", newline="") as file:
        texts = file.read().split(SEPARATOR)
    lines = Path(f"{path}.out").read_text("utf-8").splitlines()
    assert len(lines) > 40
    assert len(texts) - len(lines) in (0, 1)  # a separator at the end leaves an empty text
    tokenizer = load_tokenizer(path)
    for text, line in zip(texts, lines, strict=False):
        expected = [int(word) for word in line.split()]
        assert tokenizer.encode(text, add_bos=False) == expected, text
        assert tokenizer.decode(expected) == text


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_any_text_comes_back(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    rng = random.Random(1)
    spellings = [tokenizer.piece(i) for i in sorted(tokenizer.special_ids)[:40]]
    if tokenizer.bos_id is not None:
        assert tokenizer.encode("", add_bos=True) == [tokenizer.bos_id]
    for _ in range(300):
        text = random_text(rng, spellings)
        ids = tokenizer.encode(text, add_bos=False)
        if "phi-3" not in path.name:  # which drops white space after some pieces
            assert tokenizer.decode(ids) == text
        assert not tokenizer.special_ids.intersection(ids)


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_control_tokens_only_when_asked_for(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    for token_id in tokenizer.special_ids:
        piece = tokenizer.piece(token_id)
        assert tokenizer.id_of(piece) == token_id
        assert tokenizer.encode(piece, add_bos=False, parse_special=True) == [token_id]
        for text in (piece, f"a{piece}b", piece * 2):
            assert not tokenizer.special_ids.intersection(tokenizer.encode(text, add_bos=False))


def test_never_two_bos() -> None:
    tokenizer = load_tokenizer(TOKENIZERS / "ggml-vocab-llama-bpe.gguf")
    bos = tokenizer.bos_id
    assert bos is not None
    assert tokenizer.adds_bos
    assert tokenizer.encode("<|begin_of_text|>hi", parse_special=True).count(bos) == 1
    assert tokenizer.encode("hi")[0] == bos
    assert tokenizer.encode("<|begin_of_text|>hi").count(bos) == 1  # the text stays text behind the one BOS
    assert tokenizer.encode("<|begin_of_text|>hi")[1:] == tokenizer.encode(
        "<|begin_of_text|>hi", add_bos=False
    )


def test_what_ends_a_generation() -> None:
    tokenizer = load_tokenizer(TOKENIZERS / "ggml-vocab-llama-bpe.gguf")
    assert {tokenizer.piece(i) for i in tokenizer.eos_ids} == {"<|end_of_text|>", "<|eot_id|>"}
    tokenizer = load_tokenizer(TOKENIZERS / "ggml-vocab-qwen2.gguf")
    assert {tokenizer.piece(i) for i in tokenizer.eos_ids} == {
        "<|endoftext|>",
        "<|im_end|>",
    }  # not HTML's </s>
