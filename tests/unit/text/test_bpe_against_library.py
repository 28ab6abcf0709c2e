"""The native encoders against others: BPE against `tokenizers`, SPM and special pieces against brute force."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from text_helpers import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    random_text,
    spm_pieces,
    write_bpe,
    write_gguf,
    write_spm,
)
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from pellucid.text.hub_decoding import byte_alphabet
from pellucid.text.pretokenizers import pretokenizers
from pellucid.text.tokenizer import Tokenizer, load_tokenizer


def trained(kind: str, ignore_merges: bool, seed: int) -> Library:
    """A small byte-level BPE with the pattern of `kind`, trained on random text."""
    library = Library(models.BPE(ignore_merges=ignore_merges))
    splits = [pre_tokenizers.Split(Regex(stage), "isolated") for stage in pretokenizers[kind].stages]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    library.decoder = decoders.ByteLevel()
    rng = random.Random(seed)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([random_text(rng) for _ in range(800)], trainer)
    library.add_special_tokens(["<|end|>", "<|endless|>", "<|a"])
    library.add_tokens([AddedToken("   ", normalized=False), AddedToken("<<>>", normalized=False)])
    return library


def as_gguf(library: Library, path: Path, kind: str) -> Path:
    data = json.loads(library.to_str())
    vocabulary = library.get_vocab(True)
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    added = {
        token["content"]: CONTROL if token["special"] else USER_DEFINED for token in data["added_tokens"]
    }
    types = np.array([added.get(piece, NORMAL) for piece in pieces], np.int32)
    merges = [" ".join(merge) for merge in data["model"]["merges"]]
    return write_bpe(path, pieces, merges, pre=kind, token_type=types)


@pytest.mark.parametrize(
    "kind", ["gpt-2", "llama-bpe", "qwen2", "smollm", "gpt-4o", "deepseek-v3", "glm4", "bloom"]
)
def test_bpe_is_that_of_the_library(tmp_path: Path, kind: str) -> None:
    library = trained(kind, pretokenizers[kind].ignore_merges, 11)
    native = load_tokenizer(as_gguf(library, tmp_path / "bpe.gguf", kind))
    rng = random.Random(12)
    spelled = ["<|end|>", "<|endless|>", "<|a", "|>", "   ", "<<>>", "<"]
    for _ in range(500):
        text = random_text(rng, spelled)
        expected = library.encode(text, add_special_tokens=False).ids
        assert native.encode(text, add_bos=False, parse_special=True) == expected, text
        assert native.decode(expected) == text


def test_a_long_text_is_encoded_as_its_words(tmp_path: Path) -> None:
    """Long texts go through a cache of words."""
    library = trained("gpt-2", False, 13)
    native = load_tokenizer(as_gguf(library, tmp_path / "bpe.gguf", "gpt-2"))
    rng = random.Random(14)
    words = [f" {random_text(rng, longest=3).strip() or 'x'}" for _ in range(3000)]
    text = "".join(words)
    assert len(text) > 1 << 13
    assert native.encode(text) == library.encode(text, add_special_tokens=False).ids


def spm_reference(tokenizer: Tokenizer, scores: dict[str, float], text: str, prefix: bool) -> list[str]:
    """Merge the neighbours that make the piece of the highest score, the leftmost of equals, until none is left."""
    symbols = list(("▁" if prefix else "") + text.replace(" ", "▁"))
    while True:
        best = None
        for i in range(len(symbols) - 1):
            score = scores.get(symbols[i] + symbols[i + 1])
            if score is not None and (best is None or score > best[0]):
                best = (score, i)
        if best is None:
            break
        i = best[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    out = []
    for symbol in symbols:
        out += [symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return out


@pytest.mark.parametrize("seed", range(6))
def test_spm_is_brute_force(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    alphabet = "ab▁é\n<" if seed % 2 else "abc▁"
    found = {"".join(rng.choice(alphabet) for _ in range(rng.randint(1, 5))) for _ in range(150)}
    if seed % 3 == 0:  # pieces as trained ones are: an escaped space only in front
        found = {piece[0] + piece[1:].replace("▁", "") for piece in found}
    scores = {piece: -float(rng.randint(0, 40)) for piece in sorted(found)}
    pieces = spm_pieces(list(scores.items()))
    prefix = bool(seed % 2)
    path = write_spm(tmp_path / "spm.gguf", pieces, add_space_prefix=prefix, add_bos_token=False)
    tokenizer = load_tokenizer(path)
    for length in (0, 1, 2, 5, 30, 120):
        for _ in range(60):
            text = "".join(rng.choice("aabbcé \n<>日") for _ in range(length))
            expected = spm_reference(tokenizer, scores, text, prefix) if text else []
            assert [tokenizer.piece(i) for i in tokenizer.encode(text)] == expected
            assert tokenizer.decode(tokenizer.encode(text)) == text
    long = " ".join(
        rng.choice(["ab", "ba", "aab", "é", "\n"]) for _ in range(3000)
    )  # with the cache of words
    assert tokenizer.decode(tokenizer.encode(long)) == long


def partition_reference(text: str, specials: list[str]) -> list[tuple[bool, str]]:
    """Each special piece in turn, the longest first, is cut out of what is still text."""
    fragments = [(False, text)]
    for piece in sorted(specials, key=lambda piece: -len(piece.encode())):
        out: list[tuple[bool, str]] = []
        for special, part in fragments:
            if special:
                out.append((True, part))
                continue
            first, *others = part.split(piece)
            out += [(False, first)] if first else []
            for other in others:
                out += [(True, piece), *([(False, other)] if other else [])]
        fragments = out
    return fragments


def test_special_pieces_the_longest_first(tmp_path: Path) -> None:
    specials = [
        "<a>",
        "<<",
        "<a><b>",
        "é<b",
        "日a>ab",
        "b>a<a",
        "a>a>a>a>",
        "<日a>><b",
    ]  # fmt: skip (of different lengths in bytes: the order among equal ones is the vocabulary's own affair)
    pieces = [*byte_alphabet(), *specials]
    types = np.array([NORMAL] * 256 + [CONTROL, USER_DEFINED] * 4, np.int32)
    pieces, types = [*pieces, "zz"], np.append(types, np.int32(NORMAL))
    tokenizer = load_tokenizer(write_bpe(tmp_path / "v.gguf", pieces, ["z z"], token_type=types))
    rng = random.Random(2)
    for _ in range(3000):
        text = "".join(rng.choice("<<aab>é日 ") for _ in range(rng.randint(0, 14)))
        for parse_special, known in ((True, specials), (False, specials[1::2])):
            ids = tokenizer.encode(text, parse_special=parse_special)
            got = [(i >= 256, tokenizer.piece(i) if i >= 256 else tokenizer.token_bytes(i)) for i in ids]
            expected = [
                entry
                for special, part in partition_reference(text, known)
                for entry in ([(True, part)] if special else [(False, bytes([b])) for b in part.encode()])
            ]
            assert got == expected, text


def test_white_space_after_special_pieces_of_phi_3(tmp_path: Path) -> None:
    pieces = [*spm_pieces([("▁", -1.0), ("a", -2.0)]), ("<|user|>", 0.0, CONTROL), ("<u>", 0.0, USER_DEFINED)]
    path = write_spm(
        tmp_path / "phi.gguf", pieces, **{"general.name": "Phi-3 mini", "add_space_prefix": False}
    )
    tokenizer = load_tokenizer(path)
    user, defined, a = (tokenizer.id_of(piece) for piece in ("<|user|>", "<u>", "a"))
    assert tokenizer.encode("<|user|> \n a<u>  a", parse_special=True) == [1, user, a, defined, a]
    assert tokenizer.encode_parts([user, " \n a"], parse_special=False) == [user, a]  # type: ignore[list-item]


def test_plain_bpe_of_gemma_4(tmp_path: Path) -> None:
    library = Library(models.BPE(byte_fallback=True))
    pieces = (
        [f"<0x{byte:02X}>" for byte in range(256)] + list("▁abé\n") + ["▁a", "\n\n", "ab", "▁ab", "<bos>"]
    )
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    library.model = models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges, byte_fallback=True)
    library.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), "isolated")
    types = np.array([6] * 256 + [NORMAL] * (len(pieces) - 257) + [CONTROL], np.int32)
    path = write_gguf(
        tmp_path / "g4.gguf", model="gemma4", tokens=pieces, merges=[" ".join(m) for m in merges], token_type=types,
        bos_token_id=len(pieces) - 1,
    )  # fmt: skip
    tokenizer = load_tokenizer(path)
    assert tokenizer.adds_bos
    rng = random.Random(0)
    for _ in range(500):
        text = "".join(rng.choice("aabb é日") for _ in range(rng.randint(0, 12)))
        expected = library.encode(text.replace(" ", "▁"), add_special_tokens=False).ids
        assert tokenizer.encode(text, add_bos=False) == expected, text
        assert tokenizer.decode(expected) == text
    newlines = tokenizer.encode("a\n\nb\n", add_bos=False)
    assert [tokenizer.piece(i) for i in newlines] == ["a", "\n\n", "b", "\n"]


def test_an_unused_piece_is_text(tmp_path: Path) -> None:
    pieces = [*spm_pieces([("a", -1.0)]), ("aa", -1.0, UNUSED)]
    tokenizer = load_tokenizer(write_spm(tmp_path / "s.gguf", pieces, add_space_prefix=False))
    assert [tokenizer.piece(i) for i in tokenizer.encode("aaa")] == ["<s>", "aa", "a"]
