"""Vocabularies in tokenizer.json files, through the `tokenizers` library.

The library recognises special tokens wherever a text spells them. For texts of users there is a twin of the
tokenizer in which every special token is spelled by one private-use character instead, so that nothing a user can
type becomes one; it is made only when a text needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Tokenizer as Library

from pellucid.errors import ModelFileError, UsageError
from pellucid.text.end_tokens import end_ids
from pellucid.text.hub_config import read_hub_config
from pellucid.text.hub_decoding import token_decoder
from pellucid.text.tokenizer import Tokenizer, surrogate_error

T = TypeVar("T")
# Private-use planes 16 and 15: where the twin's spellings lie, one block after another.
PRIVATE_BLOCKS = tuple(range(0x100000, 0x10F000, 0x4000)) + tuple(range(0xF0000, 0xFF000, 0x4000))


def guarded(path: Path, field: str, call: Callable[[], T]) -> T:
    """`call()`; whatever the library throws, its Rust panics (which are no Exception) too, in one line."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError, UnicodeEncodeError):
        raise
    except BaseException as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ModelFileError(path, field, f"the tokenizers library refused it: {lines[0][:160]}") from None


def load_library(path: Path, text: str | None = None) -> Library:
    """Truncation and padding that the file may ask for are switched off: both change a prompt in silence."""
    library = guarded(
        path, "tokenizer", lambda: Library.from_str(text) if text else Library.from_file(str(path))
    )
    library.no_truncation()
    library.no_padding()
    return library


class HubTokenizer(Tokenizer):
    """See `Tokenizer`. Errors: ModelNotFoundError, ModelFileError, UnsupportedModelError."""

    def __init__(self, file: Path) -> None:
        self.path = str(file)
        self._file = file
        if not file.is_file():
            raise ModelFileError(file, "file", "is not there, or is no regular file")
        self._library = load_library(file)
        self._added: dict[int, Any] = guarded(file, "added_tokens", self._library.get_added_tokens_decoder)
        config = read_hub_config(file.parent)
        size = (
            guarded(file, "model.vocab", lambda: max(self._library.get_vocab(True).values(), default=-1)) + 1
        )
        if not 0 < size <= 1 << 24:
            raise ModelFileError(file, "model.vocab", f"expected 1 to {1 << 24} tokens, found {size}")
        self.vocabulary_size = max(size, config.model_vocabulary_size)
        decoder = self._library.decoder
        self._decode = token_decoder(file, None if decoder is None else decoder.__getstate__())
        self.strips_space = self._decode.strips_space
        self.named_tokens = config.named_tokens
        self.chat_template = config.chat_template
        self._name_specials(config.adds_bos, config.adds_eos)
        self._twins: dict[int, Library] = {}

    def _name_specials(self, adds_bos: bool | None, adds_eos: bool | None) -> None:
        before, after = self._frame()
        named = {name: self.id_of(piece) for name, piece in self.named_tokens.items()}
        self.bos_id = named.get("bos_token")
        if self.bos_id is None and before:
            self.bos_id = before[0]
            self.named_tokens = {**self.named_tokens, "bos_token": self.piece(before[0])}
        self.adds_bos = bool(before) if adds_bos is None else adds_bos
        if self.adds_bos and self.bos_id is None:
            problem = "add_bos_token is true, but no bos_token is named that the vocabulary has"
            raise ModelFileError(self._file.parent, "tokenizer_config.json", problem)
        self.adds_eos = bool(after) if adds_eos is None else adds_eos
        self.unknown_id = named.get("unk_token")
        ends, _ = end_ids(lambda piece: i if (i := self.id_of(piece)) in self.special_ids else None)
        eos = named.get("eos_token")
        self.eos_ids = frozenset(ends | ({eos} if eos is not None else set()))

    def _frame(self) -> tuple[list[int], list[int]]:
        """What the post-processor puts before and after a text."""
        text = "a"

        def both() -> tuple[list[int], list[int]]:
            bare = self._library.encode(text, add_special_tokens=False).ids
            framed = self._library.encode(text, add_special_tokens=True).ids
            return bare, framed

        bare, framed = guarded(self._file, "post_processor", both)
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return framed[:start], framed[start + len(bare) :]
        return [], []

    @cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(i for i, token in self._added.items() if token.special)

    # Encoding.

    def encode_parts(self, parts: Sequence[str | int], *, parse_special: bool) -> list[int]:
        text = "".join(part if isinstance(part, str) else self.piece(part) for part in parts)
        given = [part for part in parts if not isinstance(part, str)]
        ids = self._ids(self._library, text)
        if parse_special and not given:
            return ids
        spelled = [i for i in ids if i in self._controls] != given
        if self.unknown_id in ids and self.piece(self.unknown_id or 0) in text:
            spelled = True
        return self._with_twin(parts, parse_special) if spelled else ids

    @cached_property
    def _controls(self) -> frozenset[int]:
        return self.special_ids - {self.unknown_id}

    def _ids(self, library: Library, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise surrogate_error(error) from None
        return guarded(
            self._file, "encoding", lambda: list(library.encode(text, add_special_tokens=False).ids)
        )

    def _with_twin(self, parts: Sequence[str | int], parse_special: bool) -> list[int]:
        """Texts that spell special tokens which they do not mean."""
        order = sorted(self.special_ids)
        points = {ord(c) for part in parts if isinstance(part, str) for c in part if ord(c) >= 0xF0000}
        for base in PRIVATE_BLOCKS:
            if not any(base <= point < base + len(order) for point in points):
                break
        else:
            raise UsageError("the text has characters of every private-use block; remove those above U+F0000")
        spelled = {token_id: chr(base + index) for index, token_id in enumerate(order)}
        pieces = {self.piece(token_id): mark for token_id, mark in spelled.items()}
        if base not in self._twins:
            self._twins[base] = self._make_twin(pieces)
        out = []
        for part in parts:
            if not isinstance(part, str):
                out.append(spelled.get(part) or self.piece(part))
            elif parse_special:
                out.append(_respell(part, pieces))
            else:
                out.append(part)
        return self._ids(self._twins[base], "".join(out))

    def _make_twin(self, pieces: dict[str, str]) -> Library:
        """The tokenizer with each special token spelled by its private-use character, in the model's own
        vocabulary too, where merging could otherwise still find it."""
        try:
            data = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ModelFileError(self._file, "JSON", f"cannot be read again: {str(error)[:100]}") from None
        for token in data.get("added_tokens", []):
            if token.get("special"):
                token["content"] = pieces[token["content"]]
                token["normalized"] = False
        model = data["model"]
        vocabulary = model.get("vocab")
        if isinstance(vocabulary, dict):
            model["vocab"] = {pieces.get(piece, piece): i for piece, i in vocabulary.items()}
        elif isinstance(vocabulary, list):
            model["vocab"] = [[pieces.get(entry[0], entry[0]), *entry[1:]] for entry in vocabulary]
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = pieces.get(model["unk_token"], model["unk_token"])
        if "merges" in model:
            model["merges"] = [merge for merge in model["merges"] if not _makes(merge, pieces)]
        data["post_processor"] = None
        return load_library(self._file, json.dumps(data, ensure_ascii=False))

    # Pieces.

    def piece(self, token_id: int) -> str:
        piece = self._library.id_to_token(self.check_id(token_id))
        return piece if piece is not None else f"[PAD{token_id}]"  # a row that has no token

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        return {token_id: token.content.encode("utf-8", "replace") for token_id, token in self._added.items()}

    def token_bytes(self, token_id: int) -> bytes:
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._decode(self.piece(token_id))
        return known

    def id_of(self, piece: str) -> int | None:
        found: int | None = self._library.token_to_id(piece)
        return found


def _makes(merge: Any, pieces: dict[str, str]) -> bool:
    sides = merge.split(" ") if isinstance(merge, str) else merge
    return "".join(sides) in pieces or any(side in pieces for side in sides)


def _respell(text: str, pieces: dict[str, str]) -> str:
    for piece in sorted(pieces, key=len, reverse=True):
        text = text.replace(piece, pieces[piece])
    return text
