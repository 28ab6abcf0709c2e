"""Drafts from the text itself: what followed when its last tokens were there before."""

from __future__ import annotations

from pellucid.arrays import common_length
from pellucid.decoding.drafts.base import NO_DRAFT, Draft
from pellucid.decoding.drafts.suffix_automaton import SuffixAutomaton
from pellucid.sampling.base import History
from pellucid.types import Int32


class ContextDrafter:
    """An automaton for each sample; what was rewound or dropped is taken back from it."""

    name = "context"
    costly = False

    def __init__(self) -> None:
        self._samples: dict[int, tuple[SuffixAutomaton, Int32]] = {}

    def draft(self, history: History, most: int) -> Draft:
        length, end = (automaton := self._follow(history)).match
        return Draft(automaton.continuation(end, most), length) if length else NO_DRAFT

    def _follow(self, history: History) -> SuffixAutomaton:
        """The automaton of the history."""
        ids = history.token_ids
        known = self._samples.get(history.sample_index)
        if known is None:
            automaton, same = SuffixAutomaton(), 0
        else:
            automaton, taken = known
            same = common_length(taken, ids)
            automaton.truncate(same)
        automaton.extend(ids[same:].tolist())
        self._samples[history.sample_index] = automaton, ids.copy()
        return automaton
