"""Vocabularies in GGUF files that are wrong: one line that names the field, never a crash or a huge allocation."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_helpers import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    VOCABULARIES,
    WHY_ABSENT,
    byte_vocabulary,
    spm_pieces,
    string_array,
    write_bpe,
    write_gguf,
    write_spm,
)

from pellucid import _native
from pellucid.errors import ModelFileError, PellucidError, UnsupportedModelError, UsageError
from pellucid.text.hub_decoding import byte_alphabet
from pellucid.text.tokenizer import load_tokenizer

BYTES = list(byte_alphabet())
TYPES = np.full(256, NORMAL, np.int32)


def bpe(tmp_path: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {"pieces": [*BYTES, "ab"], "merges": ["a b"], **changes}
    settings.setdefault("token_type", np.full(len(settings["pieces"]), NORMAL, np.int32))
    return write_bpe(tmp_path / "v.gguf", **settings)


def spm(tmp_path: Path, **changes: Any) -> Path:
    return write_spm(tmp_path / "v.gguf", spm_pieces([("a", -1.0)]), **changes)


@pytest.mark.parametrize(
    ("field", "write"),
    [
        ("tokenizer.ggml.model", lambda p: write_gguf(p / "v.gguf", tokens=["a"])),
        ("tokenizer.ggml.model", lambda p: write_gguf(p / "v.gguf", model="bert", tokens=["a"])),
        ("tokenizer.ggml.model", lambda p: write_gguf(p / "v.gguf", model="t5", tokens=["a"])),
        ("tokenizer.ggml.model", lambda p: write_gguf(p / "v.gguf", model="rwkv", tokens=["a"])),
        ("tokenizer.ggml.model", lambda p: write_gguf(p / "v.gguf", model=3, tokens=["a"])),
        ("tokenizer.ggml.pre", lambda p: bpe(p, pre="no-such-kind")),
        ("tokenizer.ggml.tokens", lambda p: write_gguf(p / "v.gguf", model="llama")),
        ("tokenizer.ggml.tokens", lambda p: write_gguf(p / "v.gguf", model="llama", tokens=[])),
        ("tokenizer.ggml.tokens", lambda p: write_gguf(p / "v.gguf", model="llama", tokens="a")),
        ("tokenizer.ggml.tokens", lambda p: bpe(p, pieces=[*BYTES, "a"])),
        ("tokenizer.ggml.scores", lambda p: write_gguf(p / "v.gguf", model="llama", tokens=["a"])),
        ("tokenizer.ggml.scores", lambda p: spm(p, scores=np.zeros(3, np.float32))),
        ("tokenizer.ggml.scores", lambda p: spm(p, scores=np.full(260, np.nan, np.float32))),
        ("tokenizer.ggml.scores", lambda p: spm(p, scores="none")),
        ("tokenizer.ggml.token_type", lambda p: spm(p, token_type=np.ones(9, np.int32))),
        ("tokenizer.ggml.token_type", lambda p: spm(p, token_type=["a"])),
        ("tokenizer.ggml.merges", lambda p: write_gguf(p / "v.gguf", model="gpt2", pre="gpt-2", tokens=BYTES)),
        ("tokenizer.ggml.merges", lambda p: bpe(p, merges=["ab"])),
        ("tokenizer.ggml.merges", lambda p: bpe(p, merges=["a b", ""])),
        ("tokenizer.ggml.merges", lambda p: bpe(p, merges=["a "])),
        ("tokenizer.ggml.merges", lambda p: bpe(p, merges=["a b", "b zzz"])),
        ("tokenizer.ggml.bos_token_id", lambda p: spm(p, bos_token_id=260)),
        ("tokenizer.ggml.eos_token_id", lambda p: spm(p, eos_token_id=2_000_000_000)),
        ("tokenizer.ggml.eos_token_id", lambda p: spm(p, eos_token_id="</s>")),
        ("tokenizer.ggml.unknown_token_id", lambda p: spm(p, unknown_token_id=True)),
        ("tokenizer.ggml.add_bos_token", lambda p: spm(p, add_bos_token=1)),
        ("tokenizer.ggml.add_bos_token", lambda p: bpe(p, add_bos_token=True)),
        ("tokenizer.chat_template", lambda p: spm(p, **{"tokenizer.chat_template": 3})),
    ],
)  # fmt: skip
def test_the_field_is_named(tmp_path: Path, field: str, write: Any) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_tokenizer(write(tmp_path))
    assert caught.value.field == field
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_kind_names_itself(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="no-such-kind"):
        load_tokenizer(bpe(tmp_path, pre="no-such-kind"))


def test_a_missing_kind_is_told(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "v.gguf", model="gpt2", tokens=[*BYTES, "ab"], merges=["a b"])
    with pytest.warns(UserWarning, match="pre is missing"):
        load_tokenizer(path)


def test_a_few_useless_merges_are_told(tmp_path: Path) -> None:
    merges = [f"{a} {b}" for a in "abcdefghij" for b in "abcdefghijk"]
    pieces = [*BYTES, *(merge.replace(" ", "") for merge in merges[:-1])]
    with pytest.warns(UserWarning, match="1 of 110 merges"):
        tokenizer = load_tokenizer(bpe(tmp_path, pieces=pieces, merges=merges))
    assert tokenizer.decode(tokenizer.encode("jk")) == "jk"


def test_bytes_without_a_token(tmp_path: Path) -> None:
    pieces = [piece for piece in BYTES if piece != "z"] + ["ab"]
    types = np.full(256, NORMAL, np.int32)
    tokenizer = load_tokenizer(bpe(tmp_path, pieces=pieces, token_type=types))
    with pytest.warns(UserWarning, match="0x7A"):
        assert tokenizer.decode(tokenizer.encode("azb")) == "ab"
    types[0] = UNKNOWN
    tokenizer = load_tokenizer(bpe(tmp_path, pieces=pieces, token_type=types, unknown_token_id=0))
    assert tokenizer.encode("z") == [0]


def test_control_pieces_that_merging_could_make(tmp_path: Path) -> None:
    """BPE and SPM vocabularies in which merges lead to a control token."""
    types = np.append(TYPES, np.array([NORMAL, CONTROL], np.int32))
    pieces = [*BYTES, "ss", "sss"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = bpe(tmp_path, pieces=pieces, merges=["s s"] * 200 + ["ss s"], token_type=types)
        tokenizer = load_tokenizer(path)
    assert [tokenizer.piece(i) for i in tokenizer.encode("sss")] == ["ss", "s"]
    tokenizer = load_tokenizer(
        write_spm(tmp_path / "s.gguf", spm_pieces([("▁", -3.0), ("<s", -1.0), (">", -2.0), ("<0x41", -1.0)]))
    )
    for text in ("<s>", "<0x41>", "<unk>", "</s>"):
        ids = tokenizer.encode(text, add_bos=False)
        assert not tokenizer.special_ids.intersection(ids)
        assert tokenizer.decode(ids) == text


def test_types_and_ids_that_nobody_knows(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0, UNKNOWN), ("", 0.0, NORMAL), ("", 0.0, 99), ("a", 0.0, -5), ("<0xZZ>", 0.0, 6)]
    tokenizer = load_tokenizer(
        write_spm(tmp_path / "s.gguf", pieces, add_bos_token=False, eos_token_id=0xFFFFFFFF)
    )
    assert tokenizer.eos_ids == frozenset()
    assert [tokenizer.token_bytes(i) for i in range(1, 5)] == [b"[EMPTY_1]", b"[EMPTY_2]", b"a", b"<0xZZ>"]


def test_native_arrays_are_checked() -> None:
    pieces = string_array(["a", "b"])
    for offset, count in ((0, 3), (0, 1 << 60), (1 << 62, 1), (pieces.size + 1, 0), (3, 2)):
        with pytest.raises(ValueError):
            _native.Vocabulary("spm", pieces, offset, count, None, None)
    for types, scores in ((np.zeros(1, np.uint8), None), (None, np.zeros(3, np.float32))):
        with pytest.raises(ValueError, match="one entry"):
            _native.Vocabulary("spm", pieces, 0, 2, types, scores)
    vocabulary = byte_vocabulary()
    for wrong in (-1, 256, 1 << 40):
        for call in (vocabulary.piece, vocabulary.bytes, vocabulary.flags, lambda i: vocabulary.join([i])):
            with pytest.raises(IndexError):
                call(wrong)
        with pytest.raises(IndexError):
            vocabulary.encode([wrong], False)


@pytest.mark.skipif(not VOCABULARIES, reason=WHY_ABSENT)
def test_mutated_files(tmp_path: Path) -> None:
    """Random damage to the head of real files: an error of ours, or a vocabulary that works."""
    rng = random.Random(3)
    path = tmp_path / "v.gguf"
    for _ in range(80):
        data = bytearray(rng.choice(VOCABULARIES[:2]).read_bytes())
        for _ in range(rng.randint(1, 6)):
            at = rng.choice([rng.randrange(2000), rng.randrange(len(data))])
            data[at] = rng.choice([0, 1, 0xFF, rng.randrange(256)])
        path.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tokenizer = load_tokenizer(path)
                tokenizer.decode(tokenizer.encode("Hello <s> world\n" * 3, parse_special=True))
            except PellucidError as error:
                assert "\n" not in str(error)


def test_text_that_is_none(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(spm(tmp_path))
    with pytest.raises(UsageError, match="surrogate"):
        tokenizer.encode("a\udc80")
    with pytest.raises(UsageError, match="expects text"):
        tokenizer.encode(b"a")  # type: ignore[arg-type]
