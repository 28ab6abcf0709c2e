"""Text to token ids and back. One interface over vocabularies in GGUF files and in tokenizer.json files.

Encoding is exact: `decode(encode(text))` gives the text back for every vocabulary that can spell it (models with
a normaliser in their tokenizer.json aside). Clean-up of spaces before punctuation, which some configurations ask
for, is never done: it loses text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import index
from os import PathLike
from pathlib import Path

from pellucid.errors import ModelFileError, ModelNotFoundError, UsageError

GGUF_MAGIC = b"GGUF"


class Tokenizer(ABC):
    """A vocabulary and its rules.

    vocabulary_size: ids are 0 .. vocabulary_size - 1. special_ids: control tokens and the unknown token.
    eos_ids: every token that ends a generation. adds_bos, adds_eos: what the file says; `encode` adds BOS as it
    says, and never EOS (a prompt that ends with EOS has nothing to continue). strips_space: one space at the
    start of a text is the tokenizer's own, and `decode` takes it away again.
    """

    path: str
    vocabulary_size: int
    bos_id: int | None
    eos_ids: frozenset[int]
    unknown_id: int | None
    adds_bos: bool
    adds_eos: bool
    strips_space: bool
    chat_template: str | None
    named_tokens: dict[str, str]  # "bos_token", "eos_token", ... -> piece, for chat templates

    @cached_property
    @abstractmethod
    def special_ids(self) -> frozenset[int]: ...

    @cached_property
    def control_pieces(self) -> dict[str, int]:
        """The spelling of every control token (the unknown token is none) and its id."""
        return {self.piece(i): i for i in self.special_ids if i != self.unknown_id}

    @abstractmethod
    def encode_parts(self, parts: Sequence[str | int], *, parse_special: bool) -> list[int]:
        """The ids of texts with given tokens between them, as of one text; no BOS is added.

        Control tokens that the texts spell are recognised only with parse_special.
        """

    @abstractmethod
    def piece(self, token_id: int) -> str:
        """The vocabulary's own entry, as it is written in the file (with its marks for spaces and bytes)."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to a text: UTF-8, perhaps a part of a character. A control token spells itself."""

    def token_text(self, token_id: int) -> str:
        """What the token adds to a text, bytes that are no whole character as \\xNN; its piece where it adds none."""
        return self.token_bytes(token_id).decode("utf-8", "backslashreplace") or self.piece(token_id)

    @abstractmethod
    def id_of(self, piece: str) -> int | None:
        """The id of an entry of the vocabulary; None: there is none."""

    def encode(self, text: str, *, add_bos: bool | None = None, parse_special: bool = False) -> list[int]:
        """The ids of `text`.

        add_bos: None as the file says. A BOS is never added to ids that begin with one. parse_special: control
        tokens that the text spells become those tokens; otherwise they stay text, whatever they spell.
        UsageError: BOS is asked for and the vocabulary has none; the text holds half a surrogate pair.
        """
        if not isinstance(text, str):
            raise UsageError(f"encode expects text (str), got {type(text).__name__}")
        ids = self.encode_parts([text], parse_special=parse_special)
        return self.with_bos(ids) if (self.adds_bos if add_bos is None else add_bos) else ids

    def with_bos(self, ids: list[int]) -> list[int]:
        """`ids` with BOS before them, unless they begin with it."""
        if self.bos_id is None:
            raise UsageError(f"{self.path}: BOS was asked for, but this vocabulary names no BOS token")
        return ids if ids[:1] == [self.bos_id] else [self.bos_id, *ids]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False, continues: bool = False) -> str:
        """The text of `ids`: their bytes, one after the other, as UTF-8; what is no UTF-8 becomes U+FFFD.

        skip_special: leave out control tokens. continues: the ids go on a text, so that a space at their start
        belongs to it (otherwise the one that the tokenizer itself put there is taken away).
        """
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise UsageError(
                f"decode: expected token ids (a list of int), got {type(ids).__name__} {ids!r:.40}"
            )
        kept = [self.check_id(i) for i in ids]
        if skip_special:
            kept = [i for i in kept if i not in self.special_ids]
        data = self.join(kept)
        if self.strips_space and not continues:
            lead = 0
            for token_id in kept:
                if token_id not in self.special_ids:
                    if data[lead : lead + 1] == b" ":
                        data = data[:lead] + data[lead + 1 :]
                    break
                lead += len(self.token_bytes(token_id))
        return data.decode("utf-8", "replace")

    def join(self, ids: Sequence[int]) -> bytes:
        return b"".join(map(self.token_bytes, ids))

    def check_id(self, token_id: int) -> int:
        """The id as an int. UsageError: no integer, or outside the vocabulary."""
        if isinstance(token_id, bool) or not hasattr(token_id, "__index__"):
            raise UsageError(f"expected a token id (int), got {type(token_id).__name__} {token_id!r:.40}")
        token_id = index(token_id)
        if not 0 <= token_id < self.vocabulary_size:
            raise UsageError(
                f"token id {token_id} is outside the vocabulary: expected 0 to {self.vocabulary_size - 1}"
            )
        return token_id

    def __len__(self) -> int:
        return self.vocabulary_size

    def __repr__(self) -> str:
        ends = ", ".join(repr(self.piece(i)) for i in sorted(self.eos_ids)) or "none"
        bos = "none" if self.bos_id is None else repr(self.piece(self.bos_id))
        return f"<{type(self).__name__} {self.vocabulary_size} tokens, BOS {bos}, end {ends}>"


def surrogate_error(error: UnicodeEncodeError) -> UsageError:
    return UsageError(
        f"the text holds half a surrogate pair (U+{ord(error.object[error.start]):04X} at {error.start}), "
        "which is no character; repair the text, e.g. text.encode('utf-16', 'surrogatepass').decode('utf-16')"
    )


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a GGUF file (with or without weights), a tokenizer.json, or a folder that has one.

    Errors: ModelNotFoundError; ModelFileError (damaged or hostile); UnsupportedModelError (a kind that pellucid
    does not read).
    """
    if not isinstance(path, str | PathLike):
        raise UsageError(f"load_tokenizer: expected a path, got {type(path).__name__} {path!r:.40}")
    path = Path(path)
    if path.is_dir():
        file = path / "tokenizer.json"
        if not file.is_file():
            raise ModelFileError(
                path,
                "tokenizer.json",
                "is not in this folder; save a 'fast' tokenizer there, or use a GGUF file",
            )
        return _load_hub(file)
    if path.suffix == ".json":
        return _load_hub(path)
    if path.suffix == ".safetensors" and path.is_file():
        return load_tokenizer(path.parent)
    return _load_gguf(path)


def _load_hub(file: Path) -> Tokenizer:
    from pellucid.text.hub_tokenizer import HubTokenizer

    return HubTokenizer(file)


def _load_gguf(path: Path) -> Tokenizer:
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"{path}: no such file; give a GGUF file, a tokenizer.json or its folder"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelFileError(path, "file", f"cannot be read: {error}") from None
    if magic != GGUF_MAGIC:
        raise ModelFileError(
            path,
            "file",
            f"expected a GGUF file, a tokenizer.json or its folder; it begins with {magic!r}",
            offset=0,
        )
    from pellucid.text.gguf_vocabulary import GGUFTokenizer
    from pellucid.weights.gguf import GGUFFile

    return GGUFTokenizer(GGUFFile(path))
