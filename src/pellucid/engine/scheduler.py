"""Scheduler: who gets how many rows in the next pass. Knows sequences and blocks, no model.

There is no prefill phase and no decode phase. Every sequence is some tokens behind and catches up: one that
is one token behind always gets its row, so a long prompt never starves the others; those that are further
behind share `prefill_chunk` rows a pass, first come first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pellucid.engine.blocks import BlockPool
from pellucid.engine.sequence import Sequence

Plan = list[tuple[Sequence, int]]  # sequences and how many rows each gets, from its num_computed on


class Scheduler:
    """A pass has at most prefill_chunk + max_sequences rows; at most max_sequences sequences hold blocks.

    When blocks run out, the sequence that began to run last gives its own back and waits at the front to be
    recomputed; the first is never preempted, so there is always progress.
    """

    def __init__(self, pool: BlockPool, *, prefill_chunk: int, max_sequences: int) -> None:
        self.pool = pool
        self.prefill_chunk = prefill_chunk
        self.max_sequences = max_sequences
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in the order in which they began to run
        self.num_preemptions = 0
        self._blocked_at: int | None = (
            None  # pool.num_releases when the first in the queue last found no room
        )

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def add_forks(self, parent: Sequence, children: Iterable[Sequence]) -> None:
        """Children (with their blocks) of a running sequence run beside it, or wait first in the queue."""
        place = self.running.index(parent) + 1
        late: list[Sequence] = []
        for child in children:
            if len(self.running) < self.max_sequences:
                self.running.insert(place, child)
                place += 1
            else:
                self.pool.free(child)
                late.append(child)
        self.waiting.extendleft(reversed(late))
        self._blocked_at = None

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is, and its blocks back."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
            self._blocked_at = None
        self.pool.free(sequence)

    def schedule(self) -> Plan:
        """The next pass; empty if there is nothing to do. Afterwards pool.take_copies() is due."""
        plan: Plan = []
        budget = self.prefill_chunk
        preemptions = self.num_preemptions
        index = 0
        while index < len(self.running):  # preemption shortens it from its end
            sequence = self.running[index]
            index += 1
            rows, cost = _rows(sequence, budget)
            if rows and self._reserve(sequence, sequence.num_computed + rows):
                plan.append((sequence, rows))
                budget -= cost
        if self.num_preemptions == preemptions:
            self._admit(plan, budget)
        return plan

    def make_room(self, sequence: Sequence, num_tokens: int) -> None:
        """Blocks for a sequence outside of the queue, at the expense of running ones."""
        while not self.pool.reserve(sequence, num_tokens):
            if not self.running:
                raise RuntimeError(f"{num_tokens} tokens do not fit into {self.pool.num_blocks} blocks")
            self._preempt()

    def _reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Blocks for a running sequence; False if it was preempted itself, being the last."""
        while not self.pool.reserve(sequence, num_tokens):
            if len(self.running) == 1:
                raise RuntimeError(f"{num_tokens} tokens do not fit into {self.pool.num_blocks} blocks")
            if self._preempt() is sequence:
                return False
        return True

    def _preempt(self) -> Sequence:
        victim = self.running.pop()
        self.pool.free(victim)
        victim.drafts = []
        self.waiting.appendleft(victim)
        self.num_preemptions += 1
        return victim

    def _admit(self, plan: Plan, budget: int) -> None:
        """Begins to run sequences in the order of the queue while there are rows and blocks for them."""
        while self.waiting and budget > 0 and len(self.running) < self.max_sequences:
            if self.running and self._blocked_at == self.pool.num_releases:
                return
            sequence = self.waiting[0]
            if not self._begin(sequence):
                return
            self.waiting.popleft()
            self.running.append(sequence)
            rows = min(sequence.num_behind, budget)
            plan.append((sequence, rows))
            budget -= rows

    def _begin(self, sequence: Sequence) -> bool:
        """Finds what of a sequence is cached, and takes blocks for all of its tokens; False if there is no
        room."""
        pool = self.pool
        matched = pool.match(sequence)
        needed = pool.blocks_for(sequence.num_tokens) - len(sequence.block_table)
        needed += matched % pool.block_size > 0  # a block shared in part is copied
        if self.running and needed > pool.num_available:
            pool.free(sequence)
            self._blocked_at = pool.num_releases
            return False
        if not pool.reserve(sequence, sequence.num_tokens):
            raise RuntimeError(f"{sequence.num_tokens} tokens do not fit into {pool.num_blocks} blocks")
        if sequence.num_reused is None:
            sequence.num_reused = matched
        return True


def _rows(sequence: Sequence, budget: int) -> tuple[int, int]:
    """How many rows a running sequence gets, and how many of them count against the budget."""
    behind = sequence.num_behind
    if behind > 1:
        rows = min(behind, budget)
        return rows, rows
    if sequence.drafts:
        sequence.drafts = sequence.drafts[:budget]
    return 1 + len(sequence.drafts), len(sequence.drafts)
