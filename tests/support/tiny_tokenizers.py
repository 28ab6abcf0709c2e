"""Small vocabularies for tiny models: byte-level BPE (tokenizer.json and GGUF) and SPM-like with byte
fallback."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BOS, EOS = "<|begin|>", "<|end|>"
LETTERS = "etaoinshrdlu"


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte 0..255: printable Latin-1 stands for itself, the rest from
    U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    stand_in = dict.fromkeys(range(256), "")
    extra = 0
    for byte in range(256):
        if byte in printable:
            stand_in[byte] = chr(byte)
        else:
            stand_in[byte] = chr(0x100 + extra)
            extra += 1
    return list(stand_in.values())


def bpe_vocabulary(size: int) -> tuple[list[str], list[str]]:
    """(pieces, merges as "a b"): two control tokens, 256 bytes, then pairs of letters in a fixed order."""
    pieces = [BOS, EOS, *byte_characters()]
    pairs = [(a, b) for a in ("\u0120", *LETTERS) for b in LETTERS][: size - len(pieces)]
    assert len(pieces) + len(pairs) == size, "the vocabulary is larger than its supply of pairs"
    return pieces + [a + b for a, b in pairs], [f"{a} {b}" for a, b in pairs]


def write_tokenizer(folder: Path, size: int, texts: Sequence[str] | None = None) -> None:
    """tokenizer.json, tokenizer_config.json and generation_config.json, as the Hub lays them out.

    texts: the merges are learnt from them; None: pairs of letters in a fixed order, up to 425 tokens in all."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if texts is None:
        pieces, merges = bpe_vocabulary(size)
        vocabulary = {piece: index for index, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if texts is not None:
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[BOS, EOS],
            initial_alphabet=byte_characters(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        assert tokenizer.get_vocab_size() == size, "the texts do not teach that many tokens"
    tokenizer.add_special_tokens([AddedToken(BOS, special=True), AddedToken(EOS, special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": BOS,
        "eos_token": EOS,
        "add_bos_token": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))


def gguf_bpe(size: int) -> dict[str, Any]:
    """Arguments for GGUFWriter, by the name of its method."""
    pieces, merges = bpe_vocabulary(size)
    types = [3, 3] + [1] * (size - 2)  # llama.cpp's token types: 1 normal, 3 control
    return {
        "add_tokenizer_model": "gpt2",
        "add_tokenizer_pre": "gpt-2",
        "add_token_list": pieces,
        "add_token_types": types,
        "add_token_merges": merges,
        "add_bos_token_id": 0,
        "add_eos_token_id": 1,
        "add_add_bos_token": False,
    }


def gguf_spm(size: int) -> dict[str, Any]:
    """The same for an SPM-like vocabulary: unknown, BOS, EOS, 256 byte tokens, then pieces with scores."""
    supply = [
        "\u2581",
        *(chr(c) for c in range(0x20, 0x7F)),
        *(a + b for a in "\u2581" + LETTERS for b in LETTERS),
    ]
    words = supply[: size - 259]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    assert len(pieces) == size, "the vocabulary is larger than its supply of pieces"
    return {
        "add_tokenizer_model": "llama",
        "add_tokenizer_pre": "default",
        "add_token_list": pieces,
        "add_token_scores": [0.0] * 259 + [-float(index) for index in range(len(words))],
        "add_token_types": [2, 3, 3] + [6] * 256 + [1] * len(words),  # 2 unknown, 6 byte
        "add_bos_token_id": 1,
        "add_eos_token_id": 2,
        "add_unk_token_id": 0,
        "add_add_bos_token": True,
        "add_add_space_prefix": True,
    }
