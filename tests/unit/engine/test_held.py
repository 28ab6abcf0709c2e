"""Held sequences: each operation against the plain list of tokens, and what they cost."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from toy_engine import VOCABULARY, ToyModel, ToyOps, check_idle, logits_of, reference

from pellucid.engine.engine import Engine, Request
from pellucid.errors import ContextOverflowError, UsageError
from pellucid.sampling.params import SamplingParams


def engine_of(num_blocks=64, block_size=8, **more):
    return Engine(ToyModel(), ToyOps(), num_blocks=num_blocks, block_size=block_size, **more)


def finish(engine, evaluations):
    """Steps until all are done; the events of requests meanwhile."""
    events, steps = [], 0
    while not all(each.done for each in evaluations):
        steps += 1
        assert steps < 5000, "the evaluation makes no progress"
        events += engine.step()
    return events


def evaluate(engine, *held):
    evaluations = engine.held.begin(held)
    finish(engine, evaluations)
    return [each.rows for each in evaluations]


def expect(rows, tokens, first=None):
    first = len(tokens) - 1 if first is None else first
    assert rows.shape == (len(tokens) - first, VOCABULARY)
    for i, row in enumerate(rows, first):
        assert np.array_equal(row, logits_of(tokens[: i + 1]))


def tokens_of(n, seed=0):
    return np.random.default_rng(seed).integers(0, VOCABULARY, n).tolist()


def test_logits_of_the_last_token_or_from_any_position():
    engine = engine_of(prefill_chunk=7)
    ids = tokens_of(50)
    held = engine.held.hold(ids)
    expect(evaluate(engine, held)[0], ids)
    assert held.cost == (50, 0, 0)
    expect(evaluate(engine, held)[0], ids)  # it has them: no pass
    assert held.cost == (50, 0, 0)
    for first in (0, 13, 48, 49):
        held.first_logit = first
        expect(evaluate(engine, held)[0], ids, first)
        assert held.first_logit is None
    held.close()
    check_idle(engine)


def test_append_truncate_set_replace():
    engine = engine_of()
    ids = tokens_of(40)
    held = engine.held.hold(ids)
    evaluate(engine, held)
    for change in ("append", "truncate", "set", "replace"):
        if change == "append":
            held.append([1, 2, 3])
            ids = [*ids, 1, 2, 3]
        elif change == "truncate":
            held.truncate(21)
            ids = ids[:21]
        elif change == "set":
            held.set(9, 5)
            ids = [*ids[:9], 5, *ids[10:]]
        else:
            held.replace(10, 12, [7, 7, 7, 7])
            ids = [*ids[:10], 7, 7, 7, 7, *ids[12:]]
        assert held.logits is None and held.token_ids.tolist() == ids
        expect(evaluate(engine, held)[0], ids)
    assert held.cost.computed == 40 + 3 + 1 + (21 - 9) + (23 - 10)
    assert held.cost.reused == 0


def test_rewind_to_every_position_computes_one_row():
    engine = engine_of()
    ids = tokens_of(40)
    held = engine.held.hold(ids)
    evaluate(engine, held)
    for length in range(39, 0, -1):
        before = held.cost.computed
        held.truncate(length)
        expect(evaluate(engine, held)[0], ids[:length])
        assert held.cost.computed == before + 1


def test_forks_share_what_is_computed():
    engine = engine_of(num_blocks=16, block_size=8)
    ids = tokens_of(60)
    held = engine.held.hold(ids)
    evaluate(engine, held)
    used = engine.pool.num_used
    children = [held.fork() for _ in range(5)]
    assert engine.pool.num_used == used == 8
    assert all(np.array_equal(child.logits, held.logits) for child in children)
    for i, child in enumerate(children):
        child.append([i])
    evaluate(engine, *children)
    for i, child in enumerate(children):
        expect(child.logits[None], [*ids, i])
        assert child.cost == (1, 60, 0)
    assert engine.pool.num_used == 8 + 5  # one partial block each
    grandchild = children[2].fork()
    children[2].close()
    grandchild.append([9])
    expect(evaluate(engine, grandchild)[0], [*ids, 2, 9])
    for each in [held, grandchild, *children]:
        each.close()
    check_idle(engine)


def test_back_to_an_earlier_continuation_is_found_in_the_cache():
    engine = engine_of()
    ids = tokens_of(64)
    held = engine.held.hold(ids)
    evaluate(engine, held)
    held.truncate(20)
    held.append(ids[20:])
    before = held.cost
    expect(evaluate(engine, held)[0], ids)
    # The block of position 20 is its own, cut; of the rest all full blocks are found again.
    assert held.cost.computed - before.computed < 15


@pytest.mark.parametrize("caching", [True, False])
def test_running_requests_take_the_room_of_parked_sequences(caching):
    engine = engine_of(num_blocks=12, block_size=8, prefix_caching=caching)
    first, second = engine.held.hold(tokens_of(40, 1)), engine.held.hold(tokens_of(30, 2))
    evaluate(engine, first, second)
    assert engine.pool.num_used == 9
    request = Request("a", tokens_of(50, 3), SamplingParams(max_tokens=40, temperature=1.0, seed=3))
    engine.add(request)
    tokens = []
    while engine.has_work:
        tokens += [event.token_id for event in engine.step()]
    assert (tokens, "length") == reference(request, engine.context_length)
    assert engine.scheduler.num_preemptions == 0, "a request gave way to a parked sequence"
    assert first.num_computed == 0
    for held, seed, n in ((first, 1, 40), (second, 2, 30)):
        held.append([1])
        expect(evaluate(engine, held)[0], [*tokens_of(n, seed), 1])
        computed, reused, recomputed = held.cost
        assert reused == 0 and computed == n + 1 + recomputed
    assert first.cost.recomputed > 0
    first.close()
    second.close()
    check_idle(engine)


def test_the_longest_unused_gives_way_first():
    engine = engine_of(num_blocks=12, block_size=8, prefix_caching=False)
    held = [engine.held.hold(tokens_of(24, seed)) for seed in range(3)]
    evaluate(engine, *held)
    held[0].append([1])
    evaluate(engine, held[0])
    engine.add(Request("a", tokens_of(20, 9), SamplingParams(max_tokens=2)))
    while engine.has_work:
        engine.step()
    assert [each.num_computed > 0 for each in held] == [True, False, True]


def test_a_held_step_is_not_delayed_by_a_long_prompt():
    engine = engine_of(num_blocks=128, prefill_chunk=4)
    held = engine.held.hold([1, 2, 3])
    evaluate(engine, held)
    engine.add(Request("long", tokens_of(300), SamplingParams(max_tokens=1)))
    for token in range(10):
        held.append([token])
        (evaluation,) = engine.held.begin([held])
        engine.step()
        assert evaluation.done
    while engine.has_work:
        engine.step()


def test_requests_in_line_are_served_while_sequences_are_driven():
    """Who holds a sequence goes to the end of the line each time: the line moves."""
    engine = engine_of(num_blocks=256, max_sequences=3)
    held = [engine.held.hold(tokens_of(9, seed)) for seed in range(6)]
    for index in range(4):
        engine.add(Request(index, tokens_of(5, index), SamplingParams(max_tokens=3)))
    ended = set()
    for _ in range(200):
        for each in held:
            each.append([1])
        for event in finish(engine, engine.held.begin(held)):
            if event.finish_reason:
                ended.add(event.request_id)
        if len(ended) == 4:
            break
    assert ended == {0, 1, 2, 3}


def test_salts_share_nothing():
    engine = engine_of()
    ids = tokens_of(50)
    for salt in (None, "a", "b", ("c", 1)):
        for again in range(2):
            held = engine.held.hold(ids, salt=salt)
            evaluate(engine, held)
            assert held.cost.reused == (49 if again else 0)
            held.close()
    assert set(engine.pool._roots) == {None, "a", "b", ("c", 1)}
    big = engine.held.hold(tokens_of(512, 7))  # evicts them all
    evaluate(engine, big)
    big.close()
    assert set(engine.pool._roots) == {None}


def test_a_dropped_sequence_gives_its_blocks_back():
    engine = engine_of()
    held = engine.held.hold(tokens_of(30))
    evaluate(engine, held)
    del held
    gc.collect()
    engine.step()
    check_idle(engine)


def test_cancel_keeps_what_is_computed():
    engine = engine_of(prefill_chunk=8)
    ids = tokens_of(60)
    held = engine.held.hold(ids)
    (evaluation,) = engine.held.begin([held])
    engine.step()
    engine.step()
    with pytest.raises(UsageError, match="being evaluated"):
        held.append([1])
    engine.held.cancel(evaluation)
    assert held.num_computed == 16 and not engine.has_work
    expect(evaluate(engine, held)[0], ids)
    assert held.cost == (60, 0, 0)


def test_rows_are_handed_over_as_they_come():
    engine = engine_of(prefill_chunk=16)
    ids = tokens_of(50)
    held, found = engine.held.hold(ids), {}
    held.first_logit = 10

    def on_rows(which, position, rows):
        assert which is held
        for i, row in enumerate(rows):
            assert position + i not in found
            found[position + i] = row.copy()

    finish(engine, engine.held.begin([held], on_rows))
    expect(np.stack([found[i] for i in range(10, 50)]), ids, 10)
    with pytest.raises(ZeroDivisionError):
        held.append([1])
        (evaluation,) = engine.held.begin([held], lambda *_: 1 / 0)
        finish(engine, [evaluation])
        raise evaluation.error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda held: held.append([VOCABULARY]), "not in the vocabulary"),
        (lambda held: held.append([]), "at least one token"),
        (lambda held: held.append([0] * 600), "exceed"),
        (lambda held: held.truncate(0), "from 1 to 3"),
        (lambda held: held.truncate(4), "from 1 to 3"),
        (lambda held: held.set(3, 1), "got"),
        (lambda held: held.set(0, -1), "token ids"),
        (lambda held: setattr(held, "first_logit", 3), "from 0 to 2, got 3"),
    ],
)
def test_errors_change_nothing(call, message):
    engine = engine_of()
    held = engine.held.hold([1, 2, 3])
    evaluate(engine, held)
    with pytest.raises((UsageError, ContextOverflowError), match=message):
        call(held)
    assert held.token_ids.tolist() == [1, 2, 3] and held.num_computed == 3 and held.logits is not None
    held.close()
    with pytest.raises(UsageError, match="closed"):
        held.append([1])
    with pytest.raises(UsageError, match="twice"):
        twice = engine.held.hold([1])
        engine.held.begin([twice, twice])
