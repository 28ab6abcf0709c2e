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

    A held sequence runs until it has caught up, then it is parked: it keeps its blocks while nobody needs them.
    When blocks run out, the parked sequences give theirs back, the longest unused first. Then the sequence
    that began to run last does, and waits at the front to be recomputed; the first is never preempted, so there
    is always progress. What is given back stays findable in the prefix cache until its place is taken.
    """

    def __init__(self, pool: BlockPool, *, prefill_chunk: int, max_sequences: int) -> None:
        self.pool = pool
        self.prefill_chunk = prefill_chunk
        self.max_sequences = max_sequences
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in the order in which they began to run
        self.parked: dict[Sequence, None] = {}  # with blocks, and not running; oldest first
        self.num_preemptions = 0
        self._blocked_at: int | None = (
            None  # pool.num_releases when the first in the queue last found no room
        )

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def num_rows(self) -> int:
        """Rows that those who run want of the next pass, without drafts."""
        return sum(min(each.num_behind, self.prefill_chunk) for each in self.running)

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence in line. A parked one that is one token behind runs at once, unless others wait for
        its place: it costs the next pass one row."""
        if (
            sequence in self.parked
            and sequence.num_behind == 1
            and len(self.running) + len(self.waiting) < self.max_sequences
        ):
            del self.parked[sequence]
            sequence.num_reused += self._match(sequence)
            self.running.append(sequence)
        else:  # where it is parked, its blocks may still be taken while it waits
            self.waiting.append(sequence)

    def park(self, sequence: Sequence) -> None:
        """A sequence stops to run or wait, and keeps its computed blocks while nobody needs them."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self.pool.truncate(sequence, sequence.num_computed)
        self.parked.pop(sequence, None)
        if sequence.block_table:
            self.parked[sequence] = None
        self._blocked_at = None  # its blocks can be had now

    def add_forks(self, parent: Sequence, children: Iterable[Sequence]) -> None:
        """Children (with their blocks) of a running sequence run beside it, or wait first in the queue."""
        place = self.running.index(parent) + 1
        late: list[Sequence] = []
        for child in children:
            if len(self.running) < self.max_sequences:
                self.running.insert(place, child)
                place += 1
            else:
                self._yield_blocks(child)
                late.append(child)
        self.waiting.extendleft(reversed(late))
        self._blocked_at = None

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is, and its blocks back."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self.parked.pop(sequence, None)
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
        """Blocks for a sequence outside of the queue, at the expense of others."""
        while not self.pool.reserve(sequence, num_tokens):
            if self.reclaim():
                continue
            if not self.running:
                raise RuntimeError(f"{num_tokens} tokens do not fit into {self.pool.num_blocks} blocks")
            self._preempt()

    def _reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Blocks for a running sequence; False if it was preempted itself, being the last."""
        while not self.pool.reserve(sequence, num_tokens):
            if self.reclaim():
                continue
            if len(self.running) == 1:
                raise RuntimeError(f"{num_tokens} tokens do not fit into {self.pool.num_blocks} blocks")
            if self._preempt() is sequence:
                return False
        return True

    def reclaim(self) -> bool:
        """The blocks of the longest unused parked sequence, for others; False if none is parked."""
        if not self.parked:
            return False
        victim = next(iter(self.parked))
        del self.parked[victim]
        self._yield_blocks(victim)
        return True

    def _preempt(self) -> Sequence:
        victim = self.running.pop()
        self._yield_blocks(victim)
        victim.drafts = []
        self.waiting.appendleft(victim)
        self.num_preemptions += 1
        return victim

    def _yield_blocks(self, sequence: Sequence) -> None:
        """All its blocks go to the cache; what others take of them is computed again."""
        sequence.num_lost = max(sequence.num_lost, sequence.num_computed)
        self.pool.free(sequence)

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
        was_parked = self.parked.pop(sequence, False) is None
        reused = self._match(sequence)
        needed = pool.blocks_for(sequence.num_tokens) - len(sequence.block_table)
        needed += sequence.num_computed % pool.block_size > 0  # a block shared in part is copied
        while needed > pool.num_available and self.reclaim():
            pass
        if self.running and needed > pool.num_available:
            if was_parked:
                self.parked[sequence] = None
                sequence.num_reused += reused
            else:
                pool.free(sequence)
            self._blocked_at = pool.num_releases
            return False
        if not pool.reserve(sequence, sequence.num_tokens):
            raise RuntimeError(f"{sequence.num_tokens} tokens do not fit into {pool.num_blocks} blocks")
        sequence.num_reused += reused
        return True

    def _match(self, sequence: Sequence) -> int:
        """Takes what is cached; returns how many positions the sequence has for the first time by that."""
        had = max(sequence.num_computed, sequence.num_lost)
        self.pool.match(sequence)
        return max(0, sequence.num_computed - had)


def _rows(sequence: Sequence, budget: int) -> tuple[int, int]:
    """How many rows a running sequence gets, and how many of them count against the budget."""
    behind = sequence.num_behind
    if behind > 1:
        rows = min(behind, budget)
        return rows, rows
    if sequence.drafts:
        sequence.drafts = sequence.drafts[:budget]
    return 1 + len(sequence.drafts), len(sequence.drafts)
