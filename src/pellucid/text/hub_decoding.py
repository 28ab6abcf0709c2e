"""What the tokens of a tokenizer.json stand for in text, as bytes: its `decoder`, applied to one token at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import UnsupportedModelError


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character of each byte: Latin-1's own where it is printable, else 256, 257, ..."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


@dataclass(frozen=True)
class TokenDecoder:
    """alphabet: of byte-level vocabularies, else empty. replacements: (text in the piece, text that is meant).
    byte_fallback: <0xXX> is a byte. strips_space: one space at the start of a text is the tokenizer's own."""

    alphabet: dict[str, int]
    replacements: tuple[tuple[str, str], ...]
    byte_fallback: bool
    strips_space: bool

    def __call__(self, piece: str) -> bytes:
        if self.byte_fallback and len(piece) == 6 and piece.startswith("<0x") and piece[5] == ">":
            try:
                return bytes([int(piece[3:5], 16)])
            except ValueError:
                pass
        for written, meant in self.replacements:
            piece = piece.replace(written, meant)
        if self.alphabet:
            try:
                return bytes([self.alphabet[c] for c in piece])
            except KeyError:
                pass  # not of the alphabet: stands for itself
        return piece.encode("utf-8", "replace")


def token_decoder(path: Path, state: bytes | None) -> TokenDecoder:
    """From the decoder's JSON. UnsupportedModelError for kinds that need more than one token at a time."""
    alphabet: dict[str, int] = {}
    replacements: list[tuple[str, str]] = []
    byte_fallback = strips = False
    for step in _flat(json.loads(state) if state else None):
        match step:
            case {"type": "ByteLevel"}:
                alphabet = byte_alphabet()
            case {"type": "ByteFallback"}:
                byte_fallback = True
            case {"type": "Fuse"}:
                pass
            case {"type": "Replace", "pattern": {"String": str(written)}, "content": str(meant)} if written:
                replacements.append((written, meant))
            case {"type": "Strip", "content": " ", "start": 0 | 1 as start, "stop": 0}:
                strips = strips or start == 1
            case {"type": "Metaspace", "replacement": str(mark)} if mark:
                replacements.append((mark, " "))
                strips = step.get("prepend_scheme", "always") != "never" and step.get(
                    "add_prefix_space", True
                )
            case _:
                kind = step.get("type") if isinstance(step, dict) else step
                raise UnsupportedModelError(
                    path, "decoder", f"{str(kind)[:60]} is not supported; expected ByteLevel, Metaspace, or a Sequence "
                    "of Replace, ByteFallback, Fuse and Strip"
                )  # fmt: skip
    return TokenDecoder(alphabet, tuple(replacements), byte_fallback, strips)


def _flat(step: Any) -> Iterator[Any]:
    if isinstance(step, dict) and step.get("type") == "Sequence":
        for inner in step.get("decoders", []):
            yield from _flat(inner)
    else:
        yield step
