"""Drafts from earlier outputs: a bounded memory of token lists, and what followed the present ending in them."""

from __future__ import annotations

from collections import deque

from pellucid.arrays import common_length
from pellucid.decoding.drafts.base import NO_DRAFT, Draft
from pellucid.decoding.drafts.suffix_automaton import SuffixAutomaton
from pellucid.errors import UsageError
from pellucid.sampling.base import History
from pellucid.types import Int32

BORDER = -1  # between two outputs: no token has this id, so no match and no draft goes across
LONGEST = 64  # tokens of a history that are matched: a longer match says no more


class Corpus:
    """At most most_tokens tokens (about 700 bytes each). When it is full, the oldest half goes.

    epoch grows with every rebuilding: places in the automaton of an earlier epoch mean nothing.
    """

    def __init__(self, most_tokens: int) -> None:
        if most_tokens < 1:
            raise UsageError(f"a corpus holds at least 1 token, got most_tokens={most_tokens}")
        self.most_tokens = most_tokens
        self.automaton = SuffixAutomaton()
        self.epoch = 0
        self._outputs: deque[list[int]] = deque()

    def __len__(self) -> int:
        return len(self.automaton)

    def add(self, output: list[int]) -> None:
        """One output; of one that is longer than the corpus, its end."""
        output = output[-(self.most_tokens - 1) :] if self.most_tokens > 1 else []
        if not output:
            return
        self._outputs.append(output)
        if len(self.automaton) + len(output) + 1 > self.most_tokens:
            self._shed()
        else:
            self._take(output)

    def _take(self, output: list[int]) -> None:
        self.automaton.extend(output)
        self.automaton.append(BORDER)

    def _shed(self) -> None:
        kept = sum(len(output) + 1 for output in self._outputs)
        while len(self._outputs) > 1 and kept > self.most_tokens // 2:
            kept -= len(self._outputs.popleft()) + 1
        self.automaton = SuffixAutomaton()
        self.epoch += 1
        for output in self._outputs:
            self._take(output)


class CorpusDrafter:
    """Follows each sample through the automaton of a corpus."""

    name = "corpus"
    costly = False

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        # Of each sample: the epoch, the tokens that were followed, and where that has led: (state, length).
        self._places: dict[int, tuple[int, Int32, int, int]] = {}

    def draft(self, history: History, most: int) -> Draft:
        automaton = self._corpus.automaton
        state, matched = self._follow(history)
        if not state:
            return NO_DRAFT
        end = automaton.end[state]
        found = automaton.tokens[end : end + most]
        return Draft(found[: found.index(BORDER)] if BORDER in found else found, matched)

    def _follow(self, history: History) -> tuple[int, int]:
        ids, corpus = history.token_ids, self._corpus
        epoch, taken, state, matched = self._places.get(history.sample_index, (-1, ids[:0], 0, 0))
        same = common_length(taken, ids)
        if epoch != corpus.epoch or same < len(taken):
            same, state, matched = max(0, len(ids) - LONGEST), 0, 0
        for token in ids[same:].tolist():
            state, matched = corpus.automaton.follow(state, matched, token)
        self._places[history.sample_index] = corpus.epoch, ids.copy(), state, matched
        return state, matched
