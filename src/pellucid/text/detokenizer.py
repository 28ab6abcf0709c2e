"""Token ids to text while they come: the pieces add up to what `Tokenizer.decode` gives for all ids at once."""

from __future__ import annotations

import codecs

from pellucid.text.tokenizer import Tokenizer


class Detokenizer:
    """One text in the making. The parameters are those of `Tokenizer.decode`."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = False, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._strip = (
            tokenizer.strips_space and not continues
        )  # a space at the start is still to be taken away
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that this token makes certain; "" while a character is unfinished.

        UsageError: the id is outside the vocabulary.
        """
        data = self._tokenizer.token_bytes(token_id)
        if (self._skip_special or self._strip) and token_id in self._tokenizer.special_ids:
            return "" if self._skip_special else self._utf8.decode(data)
        if self._strip:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def finish(self) -> str:
        """What is left: U+FFFD if the text ends inside of a character. The detokenizer is then as new, but for
        the space at the start."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
