"""A text as all sequences of tokens that can bring it, for stages that look at token ids."""

from __future__ import annotations

from collections.abc import Iterable

from pellucid.errors import UsageError
from pellucid.text.continuation import encode_continuation
from pellucid.text.tokenizer import Tokenizer


def breaker_sequences(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """(id,) of every token that holds a text whole; (id, ids of the rest...) of every token that ends with a beginning
    of it: the rest is encoded as the tokenizer does. What llama.cpp makes of its sequence breakers."""
    pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocabulary_size)]
    special = tokenizer.special_ids
    found: dict[tuple[int, ...], None] = {}
    for text in texts:
        wanted = text.encode("utf-8", "surrogatepass")
        tails: dict[bytes, tuple[int, ...] | None] = {}
        for token, piece in enumerate(pieces):
            if token in special:
                continue
            if wanted in piece:
                found[(token,)] = None
                continue
            for length in _overlaps(piece, wanted):
                rest = wanted[length:]
                if rest not in tails:
                    tails[rest] = _encoded(tokenizer, rest)
                tail = tails[rest]
                if tail is not None:
                    found[(token, *tail)] = None
    return tuple(found)


def _overlaps(piece: bytes, wanted: bytes) -> Iterable[int]:
    """Lengths of the beginnings of `wanted` with which `piece` ends."""
    if wanted[0] not in piece:
        return ()
    longest = min(len(piece), len(wanted) - 1)
    return [length for length in range(1, longest + 1) if piece.endswith(wanted[:length])]


def _encoded(tokenizer: Tokenizer, rest: bytes) -> tuple[int, ...] | None:
    """None: it begins within a character, or the vocabulary cannot spell it."""
    try:
        return tuple(encode_continuation(tokenizer, rest.decode("utf-8"))) or None
    except (UnicodeDecodeError, UsageError):
        return None
