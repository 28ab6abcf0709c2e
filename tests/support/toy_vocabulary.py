"""A vocabulary that can be enumerated: a handful of pieces, and an end."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.text.tokenizer import Tokenizer


class ToyVocabulary(Tokenizer):
    """ids: pieces in the order given, then the end-of-text token. Encodes greedily, longest piece first."""

    def __init__(self, *pieces: str) -> None:
        self.path = "toy"
        self.pieces = [piece.encode() for piece in pieces]
        self.end = len(pieces)
        self.vocabulary_size = len(pieces) + 1
        self.bos_id = self.unknown_id = self.chat_template = None
        self.eos_ids = frozenset({self.end})
        self.adds_bos = self.adds_eos = self.strips_space = False
        self.named_tokens = {}

    @property
    def special_ids(self) -> frozenset[int]:
        return self.eos_ids

    def encode_parts(self, parts: Sequence[str | int], *, parse_special: bool) -> list[int]:
        ids: list[int] = []
        for part in parts:
            rest = part.encode() if isinstance(part, str) else b""
            ids += [part] if isinstance(part, int) else []
            while rest:
                fits = [i for i, piece in enumerate(self.pieces) if rest.startswith(piece)]
                if not fits:
                    return []
                best = max(fits, key=lambda i: len(self.pieces[i]))
                ids.append(best)
                rest = rest[len(self.pieces[best]) :]
        return ids

    def piece(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode()

    def token_bytes(self, token_id: int) -> bytes:
        return b"<end>" if token_id == self.end else self.pieces[token_id]

    def id_of(self, piece: str) -> int | None:
        return self.pieces.index(piece.encode()) if piece.encode() in self.pieces else None
