"""What stages with a state remember of one request, by position: so that rewinding, forking and drafts are exact.

The state before a position is that after the last position that this request chose and whose tokens still stand in
the history. Tokens that it did not choose (a prompt, tokens put in by hand) leave the state as it is. So a state is
a function of the history and of the logits of the chosen positions, however often a position is chosen again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pellucid.arrays import common_length
from pellucid.sampling.base import History, State, StatefulProcessor
from pellucid.types import Int32

States = Mapping[str, State]


class Memory:
    """states: of each sample, in ascending position. A record is (position, the states after its token)."""

    def __init__(self, stages: Mapping[str, StatefulProcessor]) -> None:
        self._initial: States = {name: stage.initial() for name, stage in stages.items()}
        self._records: dict[int, list[tuple[int, States]]] = {}
        self._chosen: dict[int, Int32] = {}  # the history that the newest record follows, its token included

    def before(self, history: History) -> States:
        """The states with which the token at len(history.token_ids) is chosen."""
        for position, states in reversed(self._valid(history)):
            if position < len(history.token_ids):
                return states
        return self._initial

    def remember(self, history: History, token_id: int, states: States) -> None:
        """token_id was chosen at len(history.token_ids), which gave these states."""
        position = len(history.token_ids)
        records = [record for record in self._valid(history) if record[0] < position]
        self._records[history.sample_index] = [*records, (position, states)]
        self._chosen[history.sample_index] = np.append(history.token_ids, np.int32(token_id))

    def _valid(self, history: History) -> list[tuple[int, States]]:
        """The records whose token, and everything before it, is as it was."""
        records = self._records.get(history.sample_index, [])
        if not records:
            return records
        same = common_length(self._chosen[history.sample_index], history.token_ids)
        return records if records[-1][0] < same else [r for r in records if r[0] < same]
