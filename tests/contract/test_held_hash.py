"""The contract for what is driven by hand: the same logits after rewinding to any position, forking, editing, saving
and restoring, eviction, preemption and in any company. One hash for each model and KV format."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from backends import backend, replaying
from recorder import Recorder
from tiny_checkpoints import make

from pellucid.engine.engine import Engine, Request
from pellucid.engine.snapshot import put_back, take_snapshot
from pellucid.models.base import models
from pellucid.sampling.params import SamplingParams
from pellucid.weights.checkpoint import open_checkpoint

BLOCK, LENGTH = 16, 70  # longer than the windows of the TINY models that have one
FORMATS = ["f32", "f16", "bf16", "q8_0", "i16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def engine_on(checkpoint, kv_format, *, threads=1, chunk=32, num_blocks=128, **more):
    ops = type(backend("cpu"))(num_threads=threads)
    model = models[checkpoint.architecture].load(checkpoint, ops)
    recorder = Recorder(model if threads == 1 else replaying(model, ops))
    engine = Engine(recorder, ops, num_blocks=num_blocks, block_size=BLOCK, prefill_chunk=chunk,
                    max_sequences=8, kv_format=kv_format, **more)  # fmt: skip
    return recorder.watch(engine), recorder


def rows_of(engine, *held):
    evaluations = engine.held.begin(held)
    while not all(each.done for each in evaluations):
        engine.step()
    return [each.rows for each in evaluations]


def digest(rows):
    return hashlib.sha256(np.ascontiguousarray(rows)).hexdigest()


@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize("name", list(models))
def test_one_hash_by_hand(folder, name, kv_format):
    checkpoint = open_checkpoint(make(folder, name, "gguf", "F32"))
    rng = np.random.default_rng(11)
    ids = rng.integers(0, 320, LENGTH).tolist()
    others = [rng.integers(0, 320, 20).tolist() for _ in range(3)]
    engine, recorder = engine_on(checkpoint, kv_format)
    whole = engine.logits(ids)
    hashes = {digest(whole)}

    # All at once, one by one, and in company.
    for threads, chunk in ((1, 7), (2, 64)):
        other_engine, _ = engine_on(checkpoint, kv_format, threads=threads, chunk=chunk)
        held = other_engine.held.hold(ids)
        held.first_logit = 0
        other_engine.add(Request("company", others[0], SamplingParams(max_tokens=30)))
        hashes.add(digest(rows_of(other_engine, held)[0]))
    held = engine.held.hold(ids[:1], salt="by hand")
    rows = []
    for token in [*ids[1:], None]:
        rows.append(rows_of(engine, held)[0][0])
        if token is not None:
            held.append([token])
    hashes.add(digest(np.stack(rows)))

    # Back to every position, from far and from near.
    rows = []
    for length in range(LENGTH, 0, -1):
        held.truncate(length)
        rows.append(rows_of(engine, held)[0][0])
    hashes.add(digest(np.stack(rows[::-1])))
    held = engine.held.hold(ids)
    rows_of(engine, held)
    rows = []
    for length in range(1, LENGTH + 1):
        far = held.fork()
        far.truncate(length)
        rows.append(rows_of(engine, far)[0][0])
        far.close()
    hashes.add(digest(np.stack(rows)))

    # Changed and changed back; a fork goes its own way meanwhile.
    for position in (0, 15, 16, 40, LENGTH - 2):
        fork = held.fork()
        held.set(position, others[0][0])
        fork.append(others[1])
        rows_of(engine, held, fork)
        held.set(position, ids[position])
        held.first_logit = 0
        hashes.add(digest(rows_of(engine, held)[0]))
        fork.close()

    # Out of one engine and into another, at lengths within and at the borders of blocks.
    for length in (1, 16, 33, LENGTH):
        held.truncate(length)
        rows_of(engine, held)
        snapshot = take_snapshot(engine, [held])
        fresh, fresh_recorder = engine_on(checkpoint, kv_format, threads=2)
        again = fresh.held.hold(ids[:length])
        # The recorder reads a row's context from what was written to its slots: it is told what was put back.
        put_back(fresh, again, snapshot.tables[0], snapshot.num_computed[0], snapshot.arrays)
        for position in range(length):
            slot = again.sequence.block_table[position // BLOCK] * BLOCK + position % BLOCK
            fresh_recorder._token_at[slot] = ids[position]
        if length < LENGTH:
            again.append(ids[length:])
            again.first_logit = length
            assert np.array_equal(rows_of(fresh, again)[0], whole[length:])
            assert again.cost.computed == LENGTH - length
        else:
            assert np.array_equal(rows_of(fresh, again)[0], whole[-1:])
        if length < LENGTH:
            held.append(ids[length:])
    assert not recorder.conflicts
    assert len(hashes) == 1


@pytest.mark.parametrize("kv_format", ["f32", "q8_0", "i16"])
@pytest.mark.parametrize("name", list(models))
def test_eviction_and_preemption_change_nothing(folder, name, kv_format):
    """Twelve blocks for three held sequences and four requests: all lose theirs again and again."""
    checkpoint = open_checkpoint(make(folder, name, "gguf", "F32"))
    rng = np.random.default_rng(12)
    prompts = [rng.integers(0, 320, int(rng.integers(20, 50))).tolist() for _ in range(4)]
    texts = [rng.integers(0, 320, 60).tolist() for _ in range(3)]
    plain, _ = engine_on(checkpoint, kv_format)
    whole = [plain.logits(text) for text in texts]
    engine, recorder = engine_on(checkpoint, kv_format, num_blocks=12, chunk=24)
    for i, prompt in enumerate(prompts):
        engine.add(Request(i, prompt, SamplingParams(max_tokens=40, temperature=1.0, seed=i)))
    held = [engine.held.hold(text[:20]) for text in texts]
    for length in range(20, 61):
        for rows, expected in zip(rows_of(engine, *held), whole, strict=True):
            assert np.array_equal(rows[0], expected[length - 1])
        for each, text in zip(held, texts, strict=True):
            if length < 60:
                each.append(text[length : length + 1])
    while engine.has_work:
        engine.step()
    assert not recorder.conflicts
    assert engine.scheduler.num_preemptions > 0
    assert sum(each.cost.recomputed for each in held) > 0
