"""The text that continues a prompt, while it comes: detokenised, and cut where a stop string begins."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.errors import UsageError
from pellucid.text.detokenizer import Detokenizer
from pellucid.text.stop import StopStrings
from pellucid.text.tokenizer import Tokenizer

_ANCHORS = ("\n", ".", "a", "0")


class ContinuationText:
    """stop_string: the stop string that is complete; from then on no text follows."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        # The text goes on the prompt: a space at its start is part of it.
        self._detokenizer = Detokenizer(tokenizer, skip_special=True, continues=True)
        self._stops = StopStrings(stop) if stop else None
        self.stop_string: str | None = None

    def push(self, token_id: int) -> str:
        """The text that this token makes certain."""
        return self._search(self._detokenizer.push(token_id))

    def flush(self) -> str:
        """What is still held back, at the end: an unfinished character, the beginning of a stop string."""
        text = self._search(self._detokenizer.finish())
        if self._stops is not None and self.stop_string is None:
            text += self._stops.finish()
        return text

    def _search(self, delta: str) -> str:
        if self._stops is None or not delta:
            return delta
        safe, self.stop_string = self._stops.push(delta)
        return safe


def encode_continuation(tokenizer: Tokenizer, text: str, *, parse_special: bool = False) -> list[int]:
    """Token ids whose bytes are exactly those of `text`, for text that stands after other text.

    Some vocabularies put a space of their own before a text; here it is kept away by a character that goes before
    and is taken off again. UsageError: no text, or the vocabulary cannot spell it.
    """
    if not isinstance(text, str) or not text:
        raise UsageError(f"expected a text of at least one character, got {text!r:.40}")
    wanted = text.encode("utf-8", "surrogatepass")
    ids = tokenizer.encode_parts([text], parse_special=parse_special)
    if tokenizer.join(ids) == wanted:
        return ids
    for anchor in _ANCHORS:
        before = tokenizer.encode_parts([anchor], parse_special=False)
        ids = tokenizer.encode_parts([anchor + text], parse_special=parse_special)
        if ids[: len(before)] == before and tokenizer.join(ids[len(before) :]) == wanted:
            return ids[len(before) :]
    raise UsageError(f"this vocabulary cannot spell {text!r:.40} after other text; give token ids")


def one_token(tokenizer: Tokenizer, token: int | str) -> int:
    """The id of a token that is given as id or as its text. UsageError: no id of the vocabulary, or a text that is not
    one token."""
    if isinstance(token, str):
        ids = encode_continuation(tokenizer, token)
        if len(ids) != 1:
            pieces = [tokenizer.token_text(each) for each in ids]
            raise UsageError(
                f"{token!r:.40} is {len(ids)} tokens here: {pieces}; give one (append takes several)"
            )
        return ids[0]
    if isinstance(token, bool) or not hasattr(token, "__index__"):
        raise UsageError(f"expected a token id or its text, got {type(token).__name__}")
    return tokenizer.check_id(int(token))
