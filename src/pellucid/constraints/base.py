"""What a constraint is to whoever chooses tokens: sampling, beam, search, scoring, speculation.

A constraint is written as text (`Source`), compiled once for a vocabulary (`Compiled`, immutable, shared between
requests and threads), and followed by a state for each sequence (`ConstraintState`, cheap to copy). The state is a
function of the tokens alone: advance, roll back and build anew come to the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pellucid.types import Int32

# One bit for a token, id ascending, the lowest bit first: uint32 [ceil(vocabulary / 32)].
Bits = NDArray[np.uint32]


class Source(NamedTuple):
    """A constraint as its author wrote it. kind: "json_schema" (JSON text), "regex", "grammar" (Lark or GBNF) or
    "choices" (the JSON text of a list of strings). compact: JSON without spaces between its parts. lenient: keywords
    of a schema that cannot be followed are left out, and listed in `Compiled.ignored`, in place of being refused."""

    kind: str
    text: str
    compact: bool = False
    lenient: bool = False


class ConstraintState(Protocol):
    """Where one sequence stands. ConstraintError from every method once the constraint became too complex."""

    @property
    def num_tokens(self) -> int:
        """How many tokens it has taken."""

    @property
    def is_accepting(self) -> bool:
        """Whether what was taken satisfies the constraint, so that the text may end here."""

    def mask(self) -> Bits:
        """The tokens that may come next, read-only; end-of-text tokens among them exactly where it is
        accepting. After an end there are none."""

    def allowed(self) -> Int32:
        """Their ids, ascending."""

    def allows(self, ids: Sequence[int] | Int32) -> int:
        """How many of these tokens, from the first on, may follow one after the other; nothing is taken."""

    def forced(self) -> list[int]:
        """The tokens of the text that must come next whatever is chosen, as the tokenizer writes it; perhaps none.
        `mask` may allow other tokens of the same text, so these are drafts, no decision."""

    def advance(self, token_id: int) -> None:
        """Takes one token. ConstraintError if the constraint does not allow it; the state is then as before."""

    def rollback(self, num_tokens: int) -> None:
        """Takes the last tokens back."""

    def copy(self) -> ConstraintState:
        """Another state at the same place."""
