"""Small vocabularies, in memory or as GGUF files, and texts to try them on."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pellucid import _native
from pellucid.text.hub_decoding import byte_alphabet

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("PELLUCID_SHARED", ROOT.parent / "shared")) / "data"
TOKENIZERS = SHARED / "tokenizers"
VOCABULARIES = sorted(TOKENIZERS.glob("*.gguf")) if TOKENIZERS.is_dir() else []
WHY_ABSENT = f"no vocabularies at {TOKENIZERS} (set PELLUCID_SHARED)"

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

CHARACTERS = list(
    "abcXYZ  \n\r\t019.,!?'\"-_/<>|$()[]{}éÀßΩд中文日本ひカ한글١٢²½Ⅷ\u00a0\u3000\u2028\u0301กั🙂।،。\u200b\u200d~^`+="
    "\u0085\u017f\u0378\ue000\u01c5ʰ\u0903"
)
WORDS = [
    "'s", "'S", "'re", "'LL", "'\u017f", "don't", "HELLO", "Hello", "camelCase", "snake_case", "1234567", "  ",
    "   ", "\n\n", " \n", "\r\n", "https://x.y/z?a=1", "I'm", " 'd", "élan", "ÉCOLE", "straße", "…", "（", "）",
    "IMGIMGABZ", "<sentinel:12>", "    ", "\t\t", "中文字", "12 345", "3.14", "🙂🙂", "a\u0301", "नमस्ते", "ไทย",
    "한국어", "ひらがな", "(１２３)", "a b c",
]  # fmt: skip


def random_text(rng: random.Random, extra: Sequence[str] = (), longest: int = 25) -> str:
    pools = [CHARACTERS, WORDS, *([list(extra)] if extra else [])]
    return "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, longest)))


def string_array(strings: Sequence[str | bytes]) -> np.ndarray:
    raw = [s.encode() if isinstance(s, str) else s for s in strings]
    return np.frombuffer(b"".join(struct.pack("<Q", len(s)) + s for s in raw) + b"\0", np.uint8)


def byte_vocabulary(stages: Sequence[str] = ()) -> _native.Vocabulary:
    """The 256 bytes and nothing else, with these stages."""
    pieces = list(byte_alphabet())
    vocabulary = _native.Vocabulary("byte-level-bpe", string_array(pieces), 0, len(pieces), None, None)
    vocabulary.set_stages(list(stages))
    vocabulary.finish()
    return vocabulary


def metadata_value(value: object) -> bytes:
    """A GGUF metadata value with its type."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, str):
        return struct.pack("<IQ", 8, len(value.encode())) + value.encode()
    if isinstance(value, np.ndarray):
        kind = {"float32": 6, "int32": 5}[str(value.dtype)]
        return struct.pack("<IIQ", 9, kind, len(value)) + value.tobytes()
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + string_array(value).tobytes()[:-1]
    raise TypeError(type(value))


def write_gguf(path: Path, **tokenizer: object) -> Path:
    """A vocabulary-only GGUF file; the names are those below "tokenizer.ggml." (or whole, with a dot)."""
    entries = {"general.architecture": "llama"}
    entries |= {key if "." in key else f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()}
    body = b"".join(
        struct.pack("<Q", len(key)) + key.encode() + metadata_value(value) for key, value in entries.items()
    )
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + body)
    return path


def write_spm(path: Path, pieces: Sequence[tuple[str, float, int]], **more: object) -> Path:
    settings: dict[str, object] = {
        "scores": np.array([score for _, score, _ in pieces], np.float32),
        "token_type": np.array([kind for _, _, kind in pieces], np.int32),
        **more,
    }
    return write_gguf(path, model="llama", tokens=[piece for piece, _, _ in pieces], **settings)


def spm_pieces(normal: Sequence[tuple[str, float]]) -> list[tuple[str, float, int]]:
    """<unk>, <s>, </s>, the byte tokens, and these."""
    return [
        ("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL),
        *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
        *((piece, score, NORMAL) for piece, score in normal),
    ]  # fmt: skip


def write_bpe(path: Path, pieces: Sequence[str], merges: Sequence[str], **more: object) -> Path:
    """Byte-level BPE. more: `token_type` for all pieces, `pre`, ids."""
    settings = {"pre": "gpt-2", "token_type": np.full(len(pieces), NORMAL, np.int32), **more}
    return write_gguf(path, model="gpt2", tokens=list(pieces), merges=list(merges), **settings)
