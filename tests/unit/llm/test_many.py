"""Long lists of prompts: order, bounds, sharing, errors, interrupts, progress."""

from __future__ import annotations

import io
import random

import pytest

from pellucid import LLM, PellucidError, SamplingParams, UsageError
from pellucid.serving.progress_bar import prompts_bar


@pytest.fixture
def small(tiny_path):
    with LLM(tiny_path, backend="reference", max_sequences=4, prefill_chunk=16, num_threads=1) as loaded:
        yield loaded


def prompts_of(count, seed=1):
    rng = random.Random(seed)
    heads = [[rng.randrange(2, 200) for _ in range(rng.randrange(1, 50))] for _ in range(4)]
    return [
        rng.choice(heads) + [rng.randrange(2, 200) for _ in range(rng.randrange(1, 6))] for _ in range(count)
    ]


def watch(llm, monkeypatch):
    """The most samples that were in the engine at a time."""
    seen = [0]
    step = llm._loaded.engine.step

    def counted():
        scheduler = llm._loaded.engine.scheduler
        seen[0] = max(seen[0], len(scheduler.running) + len(scheduler.waiting))
        return step()

    monkeypatch.setattr(llm._loaded.engine, "step", counted)
    return seen


def idle(llm):
    return llm._loaded.engine.pool.num_used == 0 and not llm._driver._running


def test_results_keep_the_order_of_the_prompts_and_equal_those_alone(small, monkeypatch):
    prompts = prompts_of(150)
    params = [
        SamplingParams(max_tokens=1 + i % 7, temperature=i % 2, seed=i, n=1 + (i % 11 == 0))
        for i in range(150)
    ]
    seen = watch(small, monkeypatch)
    results = small.generate(prompts, params)
    assert seen[0] <= small._loaded.places == 8
    assert [r.prompt_token_ids for r in results] == prompts
    for i in range(0, 150, 11):
        alone = small.generate(prompts[i], params[i])
        assert [s.token_ids for s in alone.outputs] == [s.token_ids for s in results[i].outputs]
    assert idle(small)


def test_equal_beginnings_are_computed_once_whatever_their_order(tiny_path):
    head = list(range(2, 98))
    prompts = [[(i % 5) + 100, *head, i] for i in range(40)]
    random.Random(3).shuffle(prompts)
    with LLM(tiny_path, backend="reference", max_sequences=2, kv_memory=2 << 20) as llm:
        results = llm.generate(prompts, max_tokens=1)
    computed = sum(r.counts.computed for r in results)
    assert computed < 5 * 98 + 40 * 8


def test_generate_iter_reads_prompts_as_there_is_room(small):
    prompts, read = prompts_of(60), [0]

    def source():
        for prompt in prompts:
            read[0] += 1
            yield prompt

    results = {}
    for index, result in small.generate_iter(source(), max_tokens=3, ignore_eos=True):
        results[index] = result
        assert read[0] <= len(results) + 3 * small._loaded.places
    assert sorted(results) == list(range(60))
    whole = small.generate(prompts, max_tokens=3, ignore_eos=True)
    assert [results[i].token_ids for i in range(60)] == [r.token_ids for r in whole]


def test_generate_iter_can_be_left(small):
    iterator = small.generate_iter((p for p in prompts_of(50)), max_tokens=5)
    next(iterator)
    iterator.close()
    assert idle(small)
    with pytest.raises(UsageError, match="prompt 1: expected text or token ids"):
        list(small.generate_iter([[1, 2], ["a", "b"]], max_tokens=1))
    assert idle(small)


def test_one_bad_request_ends_all_and_nothing_runs_on(small):
    with pytest.raises(UsageError):
        small.generate([[1], [99999]], max_tokens=2)
    several = [SamplingParams(max_tokens=2)] * 30
    several[17] = SamplingParams(
        max_tokens=2, allowed_ids=[1], min_tokens=1
    )  # 1 is the end token: none is left
    with pytest.raises(PellucidError, match="no token is left"):
        small.generate(prompts_of(30), several)
    assert idle(small)


@pytest.mark.parametrize("step", [1, 5, 20])
def test_ctrl_c_leaves_nothing_running(small, monkeypatch, step):
    engine, count = small._loaded.engine, [0]
    real = engine.step

    def interrupted():
        count[0] += 1
        if count[0] == step:
            raise KeyboardInterrupt
        return real()

    monkeypatch.setattr(engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small.generate(prompts_of(100), max_tokens=4)
    assert idle(small)


def test_the_bar_is_shown_where_it_is_wanted(small, monkeypatch):
    for wanted, terminal, shown in (
        (None, False, False),
        (None, True, True),
        (True, False, True),
        (False, True, False),
    ):
        stream = io.StringIO()
        stream.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr("sys.stderr", stream)
        small.generate([[1], [2], [3]], max_tokens=2, progress=wanted, ignore_eos=True)
        assert bool(stream.getvalue()) == shown, (wanted, terminal)
        if shown:
            assert "3/3" in stream.getvalue() and "6 tokens" in stream.getvalue()
    with pytest.raises(UsageError, match="progress"):
        small.generate(["a"], progress=1)


def test_without_stderr_there_is_no_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with prompts_bar(3, None) as advance:
        advance(1)
