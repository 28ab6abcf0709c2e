"""A vocabulary as llguidance wants it: the exact bytes of each token, and how a text is written in tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pellucid.errors import ConstraintError, UsageError
from pellucid.text.continuation import encode_continuation

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from pellucid.text.tokenizer import Tokenizer


class _Spelling:
    """What llguidance asks of a tokenizer. Control tokens spell nothing: no text of a constraint contains one."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int, eos_ids: list[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = eos_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocabulary_size)]
        self.tokens += [b""] * (vocabulary_size - len(self.tokens))
        self.special_token_ids = sorted(tokenizer.special_ids | set(eos_ids))

    def __call__(self, text: str | bytes) -> list[int]:
        """The ids of a text that stands after other text: [] where the vocabulary cannot spell it. Errors do not
        cross into llguidance, and it only asks in order to guess."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        try:
            return encode_continuation(self._tokenizer, text) if text else []
        except UsageError:
            return []


def build_vocabulary(tokenizer: Tokenizer, vocabulary_size: int, eos_ids: Iterable[int]) -> LLTokenizer:
    """vocabulary_size: of the model's logits, at least the tokenizer's; ids beyond the tokenizer are never allowed.

    It takes 0.1 s for 49,152 tokens and 1 s for 262,144. ConstraintError: the model has no end-of-text token, so a
    constrained text could not end."""
    from llguidance import LLTokenizer, TokenizerWrapper

    ends = sorted(eos_ids)
    if not ends:
        raise ConstraintError("this model has no end-of-text token, so a constrained text could not end")
    spelling = TokenizerWrapper(_Spelling(tokenizer, vocabulary_size, ends))
    return LLTokenizer(spelling, n_vocab=vocabulary_size, eos_token=ends)
