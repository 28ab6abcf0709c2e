"""The vocabulary that a GGUF file carries: SPM (scores) or BPE (merge ranks), encoded by native code in place.

Nothing is made for each piece in Python: Gemma's 262,144 pieces are indexed where they lie in the file.
Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; what files leave out follows llama.cpp, and a
guess that could change ids is told in a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pellucid import _native
from pellucid.errors import ModelFileError, UnsupportedModelError
from pellucid.text.end_tokens import END_PIECES, MIDDLE_PIECES, SHOWN_PIECES, end_ids
from pellucid.text.pretokenizers import PreTokenizer, pretokenizers
from pellucid.text.tokenizer import Tokenizer, surrogate_error
from pellucid.types import Array
from pellucid.weights.gguf import GGUFFile
from pellucid.weights.strings import StringArray

PREFIX = "tokenizer.ggml."
UNKNOWN, CONTROL, USER_DEFINED, TYPE_MASK, STRIP_RIGHT = 2, 3, 4, 7, 32
NORMAL = 1
MAX_PIECES = 1 << 24  # no sound vocabulary comes near
REFUSED = {
    "bert": "WordPiece", "t5": "Unigram", "rwkv": "RWKV", "plamo2": "PLaMo-2", "hybriddna": "DNA",
    "whitespace": "whitespace", "no_vocab": "no vocabulary", "none": "no vocabulary",
}  # fmt: skip


class GGUFTokenizer(Tokenizer):
    """See `Tokenizer`. Errors: ModelFileError, UnsupportedModelError (from the constructor)."""

    def __init__(self, file: GGUFFile) -> None:
        self.path = str(file.path)
        self._metadata = file.metadata
        self.model = self._get("model", str)
        self._pieces = self._strings("tokens")
        self.vocabulary_size = len(self._pieces)
        pre = self._pretokenizer()
        self._vocabulary = self._native(pre)
        self._name_specials(pre)
        self._retype()
        if pre is not None:
            self._add_merges()
            self._vocabulary.set_stages(list(pre.stages))
        space = pre is None and self._get("add_space_prefix", bool, True)
        self.strips_space = space
        self._vocabulary.set_options(
            add_space_prefix=space,
            ignore_merges=pre is not None and pre.ignore_merges,
            newline_words=pre is not None and pre.newline_words,
            unknown_id=self.unknown_id,
        )
        self._vocabulary.finish()
        template = file.metadata.get("tokenizer.chat_template")
        if template is not None and not isinstance(template, str):
            raise self._error("chat_template", "expected a string", prefix="tokenizer.")
        self.chat_template = template

    # Reading the file.

    def _error(
        self, key: str, problem: str, *, prefix: str = PREFIX, offset: int | None = None
    ) -> ModelFileError:
        return ModelFileError(self.path, prefix + key, problem, offset=offset)

    def _get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self._metadata.get(PREFIX + key, default)
        if value is None:
            if default is None and key == "model":
                raise self._error(key, "is missing: this file holds no vocabulary")
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._error(key, f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    def _strings(self, key: str) -> StringArray:
        value = self._metadata.get(PREFIX + key)
        if not isinstance(value, StringArray):
            what = "is missing" if value is None else f"expected strings, found {type(value).__name__}"
            raise self._error(key, what)
        if not 0 < len(value) <= MAX_PIECES:
            raise self._error(
                key, f"expected 1 to {MAX_PIECES} entries, found {len(value)}", offset=value.offset
            )
        return value

    def _numbers(self, key: str, kinds: str) -> Array | None:
        """A numeric array with one entry for each piece; None: the file has none."""
        value = self._metadata.get(PREFIX + key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
            raise self._error(key, f"expected an array of numbers, found {type(value).__name__}")
        if len(value) < self.vocabulary_size:
            raise self._error(key, f"has {len(value)} entries for {self.vocabulary_size} pieces")
        return value[: self.vocabulary_size]

    def _pretokenizer(self) -> PreTokenizer | None:
        """How words are cut; None for SPM, which cuts none."""
        if self.model == "llama":
            return None
        if self.model == "gemma4":
            return pretokenizers["gemma4"]
        if self.model != "gpt2":
            what = REFUSED.get(self.model, "unknown")
            raise UnsupportedModelError(
                self.path, PREFIX + "model", f"'{self.model}' ({what}) is not supported; pellucid reads llama (SPM), "
                "gpt2 (BPE) and gemma4 vocabularies"
            )  # fmt: skip
        name = self._get("pre", str)
        if not name:
            warnings.warn(
                f"{self.path}: tokenizer.ggml.pre is missing; taking 'default', as llama.cpp does. The token ids may "
                "not be those that the model was trained with: convert the model again with a current converter",
                UserWarning,
                stacklevel=5,
            )
            name = "default"
        if name not in pretokenizers:
            raise UnsupportedModelError(
                self.path, PREFIX + "pre", f"the pre-tokenizer kind {name[:40]!r} is not known; there are "
                f"{len(pretokenizers)}, see pellucid/text/pretokenizers.py"
            )  # fmt: skip
        return pretokenizers[name]

    def _native(self, pre: PreTokenizer | None) -> Any:
        types = self._numbers("token_type", "iu")
        if types is None:
            flags = None
        else:
            flags = np.where((types >= 0) & (types <= 6), types, 0).astype(np.uint8)
        scores = None
        if pre is None:
            found = self._numbers("scores", "iuf")
            if found is None:
                raise self._error("scores", "is missing: an SPM vocabulary merges by its scores")
            scores = np.ascontiguousarray(found, np.float32)
            if np.isnan(scores).any():
                raise self._error("scores", f"entry {int(np.isnan(scores).argmax())} is not a number")
        kind = "spm" if pre is None else "plain-bpe" if pre.plain else "byte-level-bpe"
        pieces = self._pieces
        try:
            return _native.Vocabulary(kind, pieces.buffer, pieces.offset, pieces.count, flags, scores)
        except ValueError as error:
            raise self._error("tokens", str(error.args[0]), offset=error.args[1]) from None

    def _add_merges(self) -> None:
        merges = self._strings("merges")
        try:
            left_out = self._vocabulary.set_merges(merges.buffer, merges.offset, merges.count)
        except ValueError as error:
            raise self._error("merges", str(error.args[0]), offset=error.args[1]) from None
        if left_out * 100 > len(merges):
            raise self._error(
                "merges", f"{left_out} of {len(merges)} name pieces that are not in the vocabulary"
            )
        if left_out:
            warnings.warn(
                f"{self.path}: {left_out} of {len(merges)} merges name pieces that are not in the vocabulary; "
                "they are left out",
                UserWarning,
                stacklevel=5,
            )

    # Special tokens.

    def _special(self, key: str) -> int | None:
        value: int | None = self._get(f"{key}_token_id", int)
        if value is not None and not 0 <= value < self.vocabulary_size:
            if value == 0xFFFFFFFF:  # -1 as an unsigned number: some converters write that for "none"
                return None
            problem = f"expected an id below {self.vocabulary_size}, found {value}"
            raise self._error(f"{key}_token_id", problem)
        return value

    def _name_specials(self, pre: PreTokenizer | None) -> None:
        ids = {
            key: self._special(key) for key in ("bos", "eos", "unknown", "padding", "eot", "eom", "seperator")
        }
        if pre is None:  # what every SPM vocabulary has in these places, if the file says nothing else
            for key, position in (("unknown", 0), ("bos", 1), ("eos", 2)):
                standard = UNKNOWN if key == "unknown" else CONTROL
                named = PREFIX + f"{key}_token_id" in self._metadata
                if not named and position < self.vocabulary_size and self._type(position) == standard:
                    ids[key] = position
        self.bos_id, self.unknown_id = ids["bos"], ids["unknown"]
        default = True if pre is None else pre.adds_bos
        self.adds_bos = self._get("add_bos_token", bool, default)
        if self.model == "gemma4":
            self.adds_bos = True  # its converters wrote a wrong value
        self.adds_eos = self._get("add_eos_token", bool, False)
        if self.adds_bos and self.bos_id is None:
            if PREFIX + "add_bos_token" in self._metadata:
                raise self._error("add_bos_token", "is true, but bos_token_id is missing")
            self.adds_bos = False
        ends, not_ends = end_ids(self.id_of)
        strike = self.id_of("</s>")  # in many vocabularies an ordinary piece, the end of HTML's <s>
        if strike is not None and strike != ids["eos"] and self._type(strike) != CONTROL:
            ends.discard(strike)
        self._not_ends = not_ends
        self.eos_ids = frozenset(
            ends | {i for k in ("eos", "eot", "eom") if (i := ids[k]) is not None} - not_ends
        )
        names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
        self.named_tokens = {names[k]: self.piece(i) for k, i in ids.items() if i is not None and k in names}

    def _type(self, token_id: int) -> int:
        flags: int = self._vocabulary.flags(token_id)
        return flags & TYPE_MASK

    def _retype(self) -> None:
        """Types that files get wrong: tokens that end a text, or divide it for
        filling in the middle, are control tokens whatever the file says."""
        vocabulary = self._vocabulary
        for piece in END_PIECES:
            if (i := vocabulary.find(piece)) in self.eos_ids:
                vocabulary.set_flags(i, CONTROL)
        for piece in MIDDLE_PIECES:
            if (i := vocabulary.find(piece)) is not None:
                vocabulary.set_flags(i, CONTROL)
        for i in self.eos_ids | ({self.bos_id} if self.bos_id is not None else set()):
            piece = self.piece(i)
            if self._type(i) == NORMAL and piece[0] + piece[-1] in ("<>", "[]"):
                vocabulary.set_flags(i, CONTROL)
        for piece in SHOWN_PIECES:
            if (i := vocabulary.find(piece)) is not None:
                vocabulary.set_flags(i, USER_DEFINED)
        for i in self._not_ends - {vocabulary.find("</s>")}:
            vocabulary.set_flags(i, USER_DEFINED)
        if self.model == "llama" and self.vocabulary_size > 2 and self.piece(2) == "</s>":
            vocabulary.set_flags(2, CONTROL)  # where SentencePiece has the end of a sentence
        name = self._metadata.get("general.name")
        if isinstance(name, str) and any(phi in name.lower() for phi in ("phi-3", "phi3")):
            self._strip_after_specials()

    def _strip_after_specials(self) -> None:
        """Phi-3: white space after a special token is dropped; the file has no place to say so."""
        vocabulary = self._vocabulary
        ids: list[int] = [
            i for kind in (UNKNOWN, CONTROL, USER_DEFINED) for i in vocabulary.ids_of_type(kind)
        ]
        kept = {"<unk>", "<s>", "<|endoftext|>"}
        for i in ids:
            if self.piece(i) not in kept:
                vocabulary.set_flags(i, self._type(i) | STRIP_RIGHT)

    # The interface.

    @cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset([*self._vocabulary.ids_of_type(CONTROL), *self._vocabulary.ids_of_type(UNKNOWN)])

    def encode_parts(self, parts: Sequence[str | int], *, parse_special: bool) -> list[int]:
        try:
            ids, lost = self._vocabulary.encode(list(parts), parse_special)
        except UnicodeEncodeError as error:
            raise surrogate_error(error) from None
        if lost:
            shown = ", ".join(f"0x{byte:02X}" for byte in sorted(set(lost))[:8])
            warnings.warn(
                f"{self.path}: the vocabulary has no token for {len(lost)} bytes of the text ({shown}); "
                "they are left out",
                UserWarning,
                stacklevel=3,
            )
        return ids  # type: ignore[no-any-return]

    def piece(self, token_id: int) -> str:
        return str(self._vocabulary.piece(self.check_id(token_id)), "utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        return self._vocabulary.bytes(self.check_id(token_id))  # type: ignore[no-any-return]

    def join(self, ids: Iterable[int]) -> bytes:
        return self._vocabulary.join(list(ids))  # type: ignore[no-any-return]

    def id_of(self, piece: str) -> int | None:
        return self._vocabulary.find(piece)  # type: ignore[no-any-return]

    def words(self, text: str) -> list[str]:
        """The words into which `text` is cut before merging (BPE)."""
        return self._vocabulary.words(text)  # type: ignore[no-any-return]
