"""BlockPool against a plain model: every slot remembers which prefix was written there."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pellucid.engine.blocks import BlockPool
from pellucid.engine.sequence import Sequence
from pellucid.errors import UsageError


def sequence_of(tokens):
    return Sequence(np.array(tokens, np.int32))


class Machine(RuleBasedStateMachine):
    """Two tokens only: beginnings of blocks collide all the time, and prefixes are found by comparison or
    wrongly."""

    num_blocks, block_size, caching = 9, 3, True

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(self.num_blocks, self.block_size, prefix_caching=self.caching)
        self.slots = {}  # (block, offset) -> the whole prefix whose last key and value lie there
        self.sequences = []

    def copy(self):
        for source, destination in self.pool.take_copies():
            for i in range(self.block_size):
                self.slots[destination, i] = self.slots.get((source, i))

    def pick(self, data):
        return data.draw(st.sampled_from(self.sequences))

    @precondition(lambda self: len(self.sequences) < 5)
    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=20))
    def begin(self, tokens):
        sequence = sequence_of(tokens)
        found = self.pool.match(sequence)
        assert found == sequence.num_computed < len(tokens)
        self.sequences.append(sequence)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data(), rows=st.integers(1, 7))
    def compute(self, data, rows):
        sequence = self.pick(data)
        stop = min(sequence.num_computed + rows, sequence.num_tokens)
        if not self.pool.reserve(sequence, stop):
            self.copy()
            if len(self.sequences) > 1:  # preemption
                victim = data.draw(st.sampled_from([s for s in self.sequences if s is not sequence]))
                self.pool.free(victim)
                self.sequences.remove(victim)
            else:
                assert stop > self.num_blocks * self.block_size, (
                    "the only sequence does not get what is there"
                )
            return
        self.copy()
        tokens = sequence.token_ids.tolist()
        for position in range(sequence.num_computed, stop):
            block = sequence.block_table[position // self.block_size]
            assert self.pool.references(block) == 1, "a write to a block that others hold"
            self.slots[block, position % self.block_size] = tuple(tokens[: position + 1])
        sequence.num_computed = stop
        self.pool.commit(sequence)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data(), token=st.integers(0, 1))
    def append(self, data, token):
        self.pick(data).append(token)

    @precondition(lambda self: self.sequences and len(self.sequences) < 5)
    @rule(data=st.data())
    def fork(self, data):
        parent = self.pick(data)
        child = parent.fork(1)
        self.pool.fork(parent, child)
        self.sequences.append(child)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def rewind(self, data, tokens):
        """Back to some length, and on with other tokens."""
        sequence = self.pick(data)
        length = data.draw(st.integers(0, sequence.num_computed))
        self.pool.truncate(sequence, length)
        sequence.num_tokens = length
        for token in tokens:
            sequence.append(token)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def end(self, data):
        sequence = self.pick(data)
        self.pool.free(sequence, data.draw(st.none() | st.integers(0, sequence.num_computed)))
        assert not sequence.block_table and sequence.num_computed == 0
        self.sequences.remove(sequence)

    @invariant()
    def what_is_computed_is_there(self):
        for sequence in self.sequences:
            tokens = sequence.token_ids.tolist()
            for position in range(sequence.num_computed):
                block = sequence.block_table[position // self.block_size]
                assert self.slots[block, position % self.block_size] == tuple(tokens[: position + 1])

    @invariant()
    def nothing_leaks(self):
        pool = self.pool
        owners = [0] * self.num_blocks
        for sequence in self.sequences:
            for block in sequence.block_table:
                owners[block] += 1
        assert owners == [pool.references(block) for block in range(self.num_blocks)]
        assert pool.num_used == sum(1 for n in owners if n)
        assert pool.num_free + pool.num_cached + pool.num_used == self.num_blocks
        assert len(set(pool._free)) == pool.num_free and not set(pool._free) & set(pool._cached)
        assert self.caching or pool.num_cached == 0

    @invariant()
    def what_is_findable_is_there(self):
        """Each node of the tree, wherever it is: the block holds what its path says; children are evictable
        first."""
        stack = [(root, ()) for root in self.pool._roots.values()]
        seen = set()
        while stack:
            node, prefix = stack.pop()
            for siblings in node.children.values():
                for child in siblings:
                    path = prefix + child.tokens
                    for i in range(len(child.tokens)):
                        assert self.slots[child.block, i] == path[: len(prefix) + i + 1]
                    assert self.pool._nodes[child.block] is child and child.parent is node
                    assert child.block not in seen
                    seen.add(child.block)
                    assert len(child.tokens) == self.block_size or not child.children
                    stack.append((child, path))
        assert seen == {b for b in range(self.num_blocks) if self.pool._nodes[b] is not None}
        assert set(self.pool._cached) <= seen

    def teardown(self):
        for sequence in self.sequences:
            self.pool.free(sequence)
        assert self.pool.num_available == self.num_blocks


class NoCachingMachine(Machine):
    caching = False


class SingleTokenBlocks(Machine):
    num_blocks, block_size = 12, 1


few = settings(max_examples=60, stateful_step_count=40, deadline=None)
many = settings(max_examples=1000, stateful_step_count=80, deadline=None)
TestMachine = Machine.TestCase
TestMachine.settings = few
TestNoCaching = NoCachingMachine.TestCase
TestNoCaching.settings = few
TestSingleTokenBlocks = SingleTokenBlocks.TestCase
TestSingleTokenBlocks.settings = few


@pytest.mark.slow
@pytest.mark.parametrize("machine", [Machine, NoCachingMachine, SingleTokenBlocks])
def test_many(machine):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=many)


def compute(pool, sequence):
    assert pool.reserve(sequence, sequence.num_tokens)
    copies = pool.take_copies()
    sequence.num_computed = sequence.num_tokens
    pool.commit(sequence)
    return copies


def test_longest_cached_prefix_is_found():
    """match() against brute force over everything that was computed."""
    rng = random.Random(5)
    pool = BlockPool(1000, 4)
    past = []
    for _ in range(120):
        base = rng.choice(past)[: rng.randrange(1, 40)] if past and rng.random() < 0.7 else []
        tokens = base + [rng.randrange(3) for _ in range(rng.randrange(1, 12))]
        sequence = sequence_of(tokens)
        shared = [sum(1 for _ in _while_equal(tokens, other)) for other in past]
        assert pool.match(sequence) == min(max(shared, default=0), len(tokens) - 1)
        compute(pool, sequence)
        pool.free(sequence)
        past.append(tokens)


def _while_equal(a, b):
    for x, y in zip(a, b, strict=False):
        if x != y:
            return
        yield x


def test_least_recently_used_goes_first():
    pool = BlockPool(4, 2)
    for tokens in ([1, 1, 9], [2, 2, 9]):  # two blocks each: a full one and a tail
        sequence = sequence_of(tokens)
        compute(pool, sequence)
        pool.free(sequence)
    again = sequence_of([1, 1, 9])
    assert pool.match(again) == 2
    pool.free(again)
    third = sequence_of([3, 3, 3, 3, 3])
    compute(pool, third)  # takes three: both tails and the head [2, 2] are older than the head [1, 1]
    pool.free(third)
    assert pool.match(sequence_of([1, 1, 9])) == 2
    assert pool.match(sequence_of([2, 2, 9])) == 0


def test_what_is_not_kept_is_written_again_first():
    """A branch that is dropped: its parent's positions are found, its own are not, and its blocks are the next."""
    pool = BlockPool(9, 2)
    parent = sequence_of([1, 2, 3])
    compute(pool, parent)
    child = parent.fork(1)
    pool.fork(parent, child)
    for token in (4, 5, 6):
        child.append(token)
    compute(pool, child)
    own = child.block_table[1:]  # the block of position 3 was copied, and one is new
    assert own[0] != parent.block_table[1]
    pool.free(child, 3)
    pool.free(parent)
    assert pool.match(sequence_of([1, 2, 3, 4, 5, 6])) == 3
    other = sequence_of([7, 8, 9])
    pool.reserve(other, 3)
    assert set(other.block_table) == set(own)


def test_equal_blocks_are_merged():
    pool = BlockPool(8, 2)
    twins = [sequence_of([5, 6, 7, 8]) for _ in range(2)]
    for sequence in twins:
        assert pool.match(sequence) == 0
    for sequence in twins:
        compute(pool, sequence)
    assert twins[0].block_table == twins[1].block_table and pool.num_used == 2


def test_who_writes_first_copies():
    pool = BlockPool(8, 4)
    parent = sequence_of([1, 2, 3])
    compute(pool, parent)
    child = parent.fork(1)
    pool.fork(parent, child)
    parent.append(4)
    child.append(5)
    (copy,) = compute(pool, parent)
    assert copy == (child.block_table[0], parent.block_table[0])
    assert compute(pool, child) == []


@pytest.mark.parametrize("wrong", [(0, 4), (4, 0), (-1, 1)])
def test_sizes_are_checked(wrong):
    with pytest.raises(UsageError, match="num_blocks >= 1"):
        BlockPool(*wrong)
