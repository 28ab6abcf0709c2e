"""Held sequences through the Driver: shared with running requests, from several threads, interrupted, closed."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from pellucid import LLM
from pellucid.errors import UsageError


def test_evaluate_gives_the_rows_of_logits(llm):
    ids = list(range(5, 45))
    whole = llm.logits(ids)
    held = llm._driver.hold(ids[:30])
    (row,) = llm._driver.evaluate([held])
    assert np.array_equal(row, whole[29:30])
    fork = held.fork()
    fork.append(ids[30:])
    fork.first_logit = 25
    other = held.fork()
    other.append([7])
    rows, _ = llm._driver.evaluate([fork, other])
    assert np.array_equal(rows, whole[25:])
    assert llm._driver.evaluate([]) == []
    seen = []
    fork.first_logit = 10
    assert llm._driver.evaluate([fork], lambda h, at, rows: seen.append((at, rows.copy()))) == []
    assert seen[0][0] == 10 and np.array_equal(np.concatenate([rows for _, rows in seen]), whole[10:])
    for each in (held, fork, other):
        each.close()
    assert llm._loaded.engine.pool.num_used == 0


def test_logits_are_computed_beside_a_stream(llm):
    """They share its passes: the stream goes on meanwhile."""
    alone = llm.generate([3, 4, 5], max_tokens=30, ignore_eos=True).token_ids
    with llm.stream([3, 4, 5], max_tokens=30, ignore_eos=True) as stream:
        next(stream)
        expected = llm.logits(list(range(100)))
        assert len(stream._request.chunks) > 3
        assert stream.result.token_ids == alone[: len(stream.result.token_ids)]
    assert np.array_equal(expected, llm.logits(list(range(100))))


def test_many_threads(llm):
    ids = list(range(40, 80))
    whole = llm.logits(ids)
    wrong = []

    def drive(start):
        held = llm._driver.hold(ids[:start])
        for position in range(start, len(ids)):
            (row,) = llm._driver.evaluate([held])
            if not np.array_equal(row[0], whole[position - 1]):
                wrong.append(position)
            held = held.fork()
            held.append([ids[position]])

    threads = [threading.Thread(target=drive, args=(start,)) for start in range(5, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    gc.collect()
    llm._driver.evaluate([])  # an occasion to take in what was dropped
    assert llm._loaded.engine.pool.num_used == 0


def test_an_interrupt_leaves_sequences_usable(llm, monkeypatch):
    held = llm._driver.hold(range(60), salt="one of its own")
    passes = []

    def interrupted(step=llm._loaded.engine.step):
        passes.append(None)
        if len(passes) == 3:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(llm._loaded.engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm._driver.evaluate([held])
    monkeypatch.undo()
    assert not llm._loaded.engine.has_work
    (row,) = llm._driver.evaluate([held])
    assert np.array_equal(row, llm.logits(list(range(60)))[-1:])
    assert held.cost == (60, 0, 0)
    held.close()


def test_a_closed_llm_keeps_no_memory_for_held_sequences(tiny_path):
    llm = LLM(tiny_path, backend="reference")
    held = llm._driver.hold([1, 2, 3])
    llm._driver.evaluate([held])
    cache = weakref.ref(llm._loaded.engine.cache)
    llm.close()
    gc.collect()
    assert cache() is None
    with pytest.raises(UsageError, match="is closed"):
        held.append([1])
    with pytest.raises(UsageError, match="is closed"):
        held.fork()
    held.close()
