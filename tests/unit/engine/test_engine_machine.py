"""Pool, tree, scheduler and held sequences against a plain dictionary of token lists: any order of anything."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from toy_engine import VOCABULARY, ToyModel, ToyOps, check_idle, logits_of, reference

from pellucid.engine.engine import Engine, Request
from pellucid.errors import UsageError
from pellucid.sampling.params import SamplingParams

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=14)  # few tokens: prefixes meet all the time
CONTEXT = 48


class FailingModel(ToyModel):
    fails = False

    def __call__(self, batch, cache):
        if self.fails:
            self.fails = False
            raise MemoryError("a pass that fails")
        return super().__call__(batch, cache)


class EngineMachine(RuleBasedStateMachine):
    num_blocks, block_size, caching = 14, 4, True

    def __init__(self):
        super().__init__()
        self.model = FailingModel(CONTEXT)
        self.engine = Engine(
            self.model, ToyOps(), num_blocks=self.num_blocks, block_size=self.block_size,
            prefill_chunk=5, max_sequences=3, prefix_caching=self.caching,
        )  # fmt: skip
        self.held = {}  # Held -> its tokens
        self.wanted = {}  # Held -> (evaluation, tokens then, first position then)
        self.requests = {}  # id -> (request, tokens so far)
        self.count = 0

    def idle(self):
        return [each for each in self.held if each not in self.wanted]

    # --- held sequences -------------------------------------------------------------------------------
    @precondition(lambda self: len(self.held) < 5)
    @rule(tokens=TOKENS, salt=st.sampled_from([None, None, "other"]))
    def hold(self, tokens, salt):
        self.held[self.engine.held.hold(tokens, salt=salt)] = list(tokens)

    @precondition(lambda self: self.idle())
    @rule(
        data=st.data(), what=st.sampled_from(["fork", "append", "truncate", "set", "first", "close", "drop"])
    )
    def change(self, data, what):
        held = data.draw(st.sampled_from(self.idle()))
        tokens = self.held[held]
        if what == "fork" and len(self.held) < 6:
            self.held[held.fork()] = list(tokens)
        elif what == "append" and len(tokens) < CONTEXT - 6:
            new = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
            held.append(new)
            tokens += new
        elif what == "truncate":
            length = data.draw(st.integers(1, len(tokens)))
            held.truncate(length)
            del tokens[length:]
        elif what == "set":
            position = data.draw(st.integers(0, len(tokens) - 1))
            held.set(position, 2)
            tokens[position] = 2
        elif what == "first":
            held.first_logit = data.draw(st.integers(0, len(tokens) - 1))
        elif what == "close":
            held.close()
            del self.held[held]
        elif what == "drop":
            del self.held[held]

    @precondition(lambda self: self.idle())
    @rule(data=st.data(), several=st.integers(1, 3))
    def evaluate(self, data, several):
        chosen = data.draw(st.permutations(self.idle()))[:several]
        first = {each: each.sequence.first_wanted for each in chosen}
        for each, evaluation in zip(chosen, self.engine.held.begin(chosen), strict=True):
            self.wanted[each] = (evaluation, list(self.held[each]), first[each])
        self.collect()

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def cancel(self, data):
        held = data.draw(st.sampled_from(list(self.wanted)))
        with pytest.raises(UsageError, match="being evaluated"):
            held.append([1])
        self.engine.held.cancel(self.wanted.pop(held)[0])

    def collect(self):
        for held in list(self.wanted):
            evaluation, tokens, first = self.wanted[held]
            if evaluation.done:
                assert len(evaluation.rows) == len(tokens) - first
                for i, row in enumerate(evaluation.rows, first):
                    assert np.array_equal(row, logits_of(tokens[: i + 1]))
                assert np.array_equal(held.logits, evaluation.rows[-1])
                del self.wanted[held]

    # --- requests -------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.requests) < 5)
    @rule(tokens=TOKENS, max_tokens=st.integers(1, 9), n=st.integers(1, 2), seed=st.integers(0, 3))
    def add(self, tokens, max_tokens, n, seed):
        self.count += 1
        params = SamplingParams(max_tokens=max_tokens, n=n, temperature=1.0, seed=seed)
        request = Request(self.count, tokens, params, stop_ids=[1])
        self.engine.add(request)
        self.requests[self.count] = (request, {i: [] for i in range(n)})

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data):
        name = data.draw(st.sampled_from(list(self.requests)))
        assert self.engine.abort(name)
        del self.requests[name]

    @rule(times=st.integers(1, 4), fails=st.sampled_from([False, False, False, True]))
    def step(self, times, fails):
        for _ in range(times):
            self.model.fails = fails
            try:
                events = self.engine.step()
            except MemoryError:
                assert fails
                continue
            finally:
                self.model.fails = False
            for event in events:
                request, samples = self.requests[event.request_id]
                tokens = samples[event.sample_index]  # gone once it has ended: it ends once
                tokens.append(event.token_id)
                if event.finish_reason is not None:
                    assert (tokens, event.finish_reason) == reference(request, CONTEXT, event.sample_index)
                    del samples[event.sample_index]
                    if not samples:
                        del self.requests[event.request_id]
            self.collect()

    # --- what holds always ----------------------------------------------------------------------------
    @invariant()
    def blocks_are_accounted_for(self):
        engine, pool = self.engine, self.engine.pool
        gc.collect(0)
        engine.held.forget_dropped()
        scheduler = engine.scheduler
        sequences = {*scheduler.running, *scheduler.waiting, *(each.sequence for each in self.held)}
        owners = [0] * pool.num_blocks
        for sequence in sequences:
            for block in sequence.block_table:
                owners[block] += 1
        assert owners == [pool.references(block) for block in range(pool.num_blocks)]
        assert pool.num_free + pool.num_cached + pool.num_used == pool.num_blocks
        assert pool.num_used == sum(1 for number in owners if number)
        with_blocks = {s for s in sequences if s.block_table and s not in scheduler.running}
        assert with_blocks == set(scheduler.parked), "blocks that nobody could take back"
        assert len(scheduler.running) <= scheduler.max_sequences
        assert all(each.token_ids.tolist() == tokens for each, tokens in self.held.items())

    def teardown(self):
        steps = 0
        while self.engine.has_work:
            self._plain_step()
            steps += 1
            assert steps < 2000, "the engine makes no progress"
        assert not self.requests and not self.wanted
        for held in list(self.held):
            held.close()
        self.held.clear()
        check_idle(self.engine)

    def _plain_step(self):
        for event in self.engine.step():
            _, samples = self.requests[event.request_id]
            if event.finish_reason is not None:
                del samples[event.sample_index]
                if not samples:
                    del self.requests[event.request_id]
        self.collect()


class NoCaching(EngineMachine):
    caching = False


assert VOCABULARY > 3
few = settings(max_examples=60, stateful_step_count=40, deadline=None)
many = settings(max_examples=1500, stateful_step_count=80, deadline=None)
TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = few
TestNoCaching = NoCaching.TestCase
TestNoCaching.settings = few


@pytest.mark.slow
@pytest.mark.parametrize("machine", [EngineMachine, NoCaching])
def test_many_orders(machine):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=many)
