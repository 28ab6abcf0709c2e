"""States that follow histories: whatever became of a sequence, its state is that of the tokens it has now.

A state is a function of the output's tokens, so this is a memory, no state of its own: rewinding, forking, drafts that
were refused and edits come to what a state built anew from the tokens would be.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pellucid.arrays import common_length
from pellucid.constraints.base import ConstraintState
from pellucid.types import Int32

_NONE: Int32 = np.empty(0, np.int32)


class Follower:
    """One request's, or one generation's: a state for each sample."""

    def __init__(self, begin: Callable[[], ConstraintState]) -> None:
        self._begin = begin
        self._states: dict[int, tuple[ConstraintState, Int32]] = {}

    def at(self, sample_index: int, output: Int32) -> ConstraintState:
        """The state after these tokens, int32 [tokens]. It is this object's own: copy it to go on with it.

        ConstraintError: they do not satisfy the constraint."""
        state, taken = self._states.pop(sample_index, (None, _NONE))
        if state is None:
            state = self._begin()
        same = common_length(taken, output)
        state.rollback(len(taken) - same)
        for token in output[same:].tolist():
            state.advance(token)
        self._states[sample_index] = (state, output.copy())
        return state
