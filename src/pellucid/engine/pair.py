"""Two sequences that take every token together: one of a prompt, and its companion, of another prompt.

They are scheduled like any two sequences, together or in different passes. Whoever comes first waits, parked: it keeps
its blocks while nobody needs them, so a cache that holds only one of the two is enough. The token is chosen from the
first sequence's logits; a stage may look at the companion's (sampling/guidance.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.engine.sequence import Sequence
from pellucid.types import Float32


@dataclass(eq=False)
class Pair:
    """row, companion_row: float32 [vocabulary] after the last token; None: not computed yet."""

    leader: Sequence
    companion: Sequence
    row: Float32 | None = None
    companion_row: Float32 | None = None

    def __post_init__(self) -> None:
        self.leader.pair = self.companion.pair = self

    def take(self, sequence: Sequence, logits: Float32) -> bool:
        """The last row of these is kept. Whether both are there."""
        if sequence is self.leader:
            self.row = logits[-1].copy()
        else:
            self.companion_row = logits[-1].copy()
        return self.row is not None and self.companion_row is not None

    def waits(self, sequence: Sequence) -> bool:
        """Whether this one has caught up, and the other has not."""
        return (self.row if sequence is self.leader else self.companion_row) is not None

    def append(self, token_id: int) -> None:
        """Both take the token; their rows are to be computed."""
        self.leader.append(token_id)
        self.companion.append(token_id)
        self.row = self.companion_row = None

    def fork(self, leader: Sequence) -> Pair:
        """Of a fork of the leader, with the same rows."""
        return Pair(leader, self.companion.fork(leader.sample_index), self.row, self.companion_row)
