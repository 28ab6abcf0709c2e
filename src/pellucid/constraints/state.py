"""`ConstraintState` over a matcher of llguidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pellucid.arrays import as_flags
from pellucid.constraints.base import Bits
from pellucid.errors import ConstraintError
from pellucid.types import Int32

if TYPE_CHECKING:
    from llguidance import LLMatcher


class MatcherState:
    """matcher: its own; no other state may use it. ends: the end-of-text tokens. mask: the present one, where known."""

    def __init__(
        self,
        matcher: LLMatcher,
        name: str,
        vocabulary_size: int,
        ends: frozenset[int],
        num_tokens: int = 0,
        mask: Bits | None = None,
    ) -> None:
        self._matcher = matcher
        self._name = name
        self._vocabulary_size = vocabulary_size
        self._ends = ends
        self._mask = mask
        self._ended = False
        self.num_tokens = num_tokens

    @property
    def is_accepting(self) -> bool:
        accepting = self._ended or bool(self._matcher.is_accepting())
        self._check()
        return accepting

    def mask(self) -> Bits:
        if self._mask is None:
            bits: Bits = np.zeros((self._vocabulary_size + 31) // 32, np.uint32)
            if not self._ended:
                self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
                self._check()
            bits.flags.writeable = False
            self._mask = bits
        return self._mask

    def allowed(self) -> Int32:
        return np.flatnonzero(as_flags(self.mask(), self._vocabulary_size)).astype(np.int32)

    def allows(self, ids: Sequence[int] | Int32) -> int:
        given = [int(i) for i in ids]
        text = next((n for n, token in enumerate(given) if token in self._ends), len(given))
        if self._ended:
            return 0
        count = int(self._matcher.validate_tokens(given[:text])) if text else 0
        self._check()
        if count < text or text == len(given):
            return count
        after = self._matcher.deep_copy()  # validate_tokens knows no ends
        after.consume_tokens(given[:text])
        return count + bool(after.is_accepting())

    def forced(self) -> list[int]:
        forced = [] if self._ended else list(self._matcher.compute_ff_tokens())
        self._check()
        return forced

    def advance(self, token_id: int) -> None:
        # `allows` first: a matcher that has consumed what it cannot take never recovers.
        if self.allows([token_id]) != 1:
            raise ConstraintError(
                f"{self._name}: token {token_id} is not allowed after {self.num_tokens} tokens"
            )
        if token_id in self._ends:
            self._ended = True  # the matcher does not count ends, so it never gets one
        else:
            self._matcher.consume_token(token_id)
            self._check()
        self.num_tokens += 1
        self._mask = None

    def rollback(self, num_tokens: int) -> None:
        if not 0 <= num_tokens <= self.num_tokens:
            raise ConstraintError(f"{self._name}: cannot take back {num_tokens} of {self.num_tokens} tokens")
        if num_tokens:
            self._matcher.rollback(num_tokens - self._ended)
            self._check()
            self.num_tokens -= num_tokens
            self._ended, self._mask = False, None

    def copy(self) -> MatcherState:
        matcher = self._matcher.deep_copy()
        copy = MatcherState(
            matcher, self._name, self._vocabulary_size, self._ends, self.num_tokens, self._mask
        )
        copy._ended = self._ended
        return copy

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError(f"{self._name}: {first_line(self._matcher.get_error())}")


NOTHING_SATISFIES = "no text satisfies it, or none from here on"
_KNOWN = {
    "NoExtensionBias": NOTHING_SATISFIES,
    "LexerTooComplex": "it became too complex to follow; make it simpler",
    "ParserTooComplex": "it became too complex to follow; make it simpler",
}


def first_line(message: str) -> str:
    """What llguidance says, without the position dump that follows; of a regular expression also what is wrong."""
    lines = [" ".join(line.split()) for line in message.split("\n<state>")[0].splitlines()] or [""]
    cause = next((line.removeprefix("error: ") for line in lines[1:] if line.startswith("error: ")), "")
    line = f"{lines[0]:.240} {cause:.100}".strip()
    return _KNOWN.get(line, line)
