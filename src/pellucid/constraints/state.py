"""`ConstraintState` over a matcher of llguidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pellucid.constraints.base import Bits
from pellucid.errors import ConstraintError
from pellucid.types import Int32

if TYPE_CHECKING:
    from llguidance import LLMatcher


class MatcherState:
    """matcher: its own; no other state may use it. first: the mask before any token, where it is known."""

    def __init__(
        self, matcher: LLMatcher, name: str, vocabulary_size: int, num_tokens: int = 0, mask: Bits | None = None
    ) -> None:
        self._matcher = matcher
        self._name = name
        self._vocabulary_size = vocabulary_size
        self._mask = mask
        self.num_tokens = num_tokens

    @property
    def is_accepting(self) -> bool:
        accepting = bool(self._matcher.is_accepting())
        self._check()
        return accepting

    def mask(self) -> Bits:
        if self._mask is None:
            bits: Bits = np.zeros((self._vocabulary_size + 31) // 32, np.uint32)
            self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
            self._check()
            bits.flags.writeable = False
            self._mask = bits
        return self._mask

    def allowed(self) -> Int32:
        return np.flatnonzero(as_flags(self.mask(), self._vocabulary_size)).astype(np.int32)

    def allows(self, ids: Sequence[int] | Int32) -> int:
        count = int(self._matcher.validate_tokens([int(i) for i in ids]))
        self._check()
        return count

    def forced(self) -> list[int]:
        forced = list(self._matcher.compute_ff_tokens())
        self._check()
        return forced

    def advance(self, token_id: int) -> None:
        # validate_tokens first: a matcher that has consumed what it cannot take never recovers.
        if self.allows([token_id]) != 1:
            raise ConstraintError(f"{self._name}: token {token_id} is not allowed after {self.num_tokens} tokens")
        self._matcher.consume_token(token_id)
        self._check()
        self.num_tokens += 1
        self._mask = None

    def rollback(self, num_tokens: int) -> None:
        if not 0 <= num_tokens <= self.num_tokens:
            raise ConstraintError(f"{self._name}: cannot take back {num_tokens} of {self.num_tokens} tokens")
        if num_tokens:
            self._matcher.rollback(num_tokens)
            self._check()
            self.num_tokens -= num_tokens
            self._mask = None

    def copy(self) -> MatcherState:
        matcher = self._matcher.deep_copy()
        return MatcherState(matcher, self._name, self._vocabulary_size, self.num_tokens, self._mask)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError(f"{self._name}: {first_line(self._matcher.get_error())}")


def as_flags(bits: Bits, vocabulary_size: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """bool [vocabulary] of a mask."""
    return np.unpackbits(bits.view(np.uint8), count=vocabulary_size, bitorder="little").view(np.bool_)


_KNOWN = {
    "NoExtensionBias": "no text satisfies it, or none from here on",
    "LexerTooComplex": "it became too complex to follow; make it simpler",
    "ParserTooComplex": "it became too complex to follow; make it simpler",
}


def first_line(message: str) -> str:
    """What llguidance says, without the position dump that follows."""
    line = " ".join((message.split("\n<state>")[0].splitlines() or [""])[0].split())
    return _KNOWN.get(line, f"{line:.240}")
