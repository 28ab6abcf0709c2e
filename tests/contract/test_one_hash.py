"""The contract: one hash of the logits of every position, over batch x prefill chunk x threads x prefix hit.

A step's numbers depend on its tokens, its positions and the model, and on nothing else.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from backends import backend, replaying
from real_models import real_model
from recorder import Recorder
from tiny_checkpoints import make

from pellucid.engine.engine import Engine, Request
from pellucid.models.base import models
from pellucid.sampling.params import SamplingParams
from pellucid.weights.checkpoint import open_checkpoint

BATCHES = [1, 2, 5, 32]
CHUNKS = [1, 7, 64, 256]
THREADS = [1, 2]
HITS = [0, 1, "middle", "full"]
BLOCK = 16
NUM_NEW = 12
GRID = list(itertools.product(BATCHES, CHUNKS, THREADS, HITS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def engine_on(
    checkpoint, num_threads, *, chunk, num_blocks, max_sequences=64, bf16_activations=False, **more
):
    """An engine whose model is watched. On two threads small passes are replayed, on one they are not."""
    ops = type(backend("cpu"))(num_threads=num_threads, bf16_activations=bf16_activations)
    model = models[checkpoint.architecture].load(checkpoint, ops)
    recorder = Recorder(model if num_threads == 1 else replaying(model, ops))
    engine = Engine(recorder, ops, num_blocks=num_blocks, block_size=BLOCK, prefill_chunk=chunk,
                    max_sequences=max_sequences, **more)  # fmt: skip
    return recorder.watch(engine), recorder


def run(engine, requests):
    """All requests to their ends -> {request id: (tokens, positions reused)}"""
    for request in requests:
        engine.add(request)
    tokens, reused = {request.request_id: [] for request in requests}, {}
    while engine.has_work:
        for event in engine.step():
            assert event.finish_reason in (None, "length"), event
            tokens[event.request_id].append(event.token_id)
            reused[event.request_id] = event.num_reused
    return {name: (ids, reused[name]) for name, ids in tokens.items()}


def request(name, ids, *, seed=None, max_tokens=NUM_NEW):
    """Greedy, or sampled with a key of its own."""
    params = {} if seed is None else {"temperature": 1.0, "seed": seed}
    return Request(name, ids, SamplingParams(max_tokens=max_tokens, **params))


def company(count, prompt, vocabulary, rng):
    """Other requests: some share a beginning with the prompt, none is the prompt."""
    others = []
    for index in range(count):
        own = rng.integers(0, vocabulary, int(rng.integers(1, 60))).tolist()
        shared = prompt[: int(rng.integers(0, len(prompt) // 2))] if index % 2 else []
        others.append(request(f"other {index}", shared + own, seed=index))
    return others


def warm_up(engine, prompt, hit):
    """Leave a beginning of the prompt in the prefix cache: none, one block, half of it, or all of it."""
    length = {0: 0, 1: BLOCK, "middle": len(prompt) // 2, "full": len(prompt)}[hit]
    if length:
        run(engine, [request("before", prompt[:length], max_tokens=1)])


def hash_of(checkpoint, prompt, batch, chunk, num_threads, hit, **more):
    """(hash of the prompt's and continuation's logits, the continuation, positions reused) in one setting."""
    num_blocks = (batch + 2) * (len(prompt) + 80) // BLOCK
    engine, recorder = engine_on(checkpoint, num_threads, chunk=chunk, num_blocks=num_blocks, **more)
    warm_up(engine, prompt, hit)
    rng = np.random.default_rng(batch * 1000 + chunk)
    others = company(batch - 1, prompt, recorder.vocabulary_size, rng)
    found = run(engine, [*others, request("the one", prompt)])
    ids, reused = found["the one"]
    assert not recorder.conflicts
    assert recorder.largest_batch >= min(batch, 2)
    return recorder.digest(prompt + ids[:-1]), ids, reused


def check_grid(checkpoint, prompt, grid, **more):
    expected = hash_of(checkpoint, prompt, 1, 256, 1, 0, **more)
    hits = set()
    for setting in grid:
        digest, ids, reused = hash_of(checkpoint, prompt, *setting, **more)
        assert digest == expected[0], f"batch, chunk, threads, hit = {setting}"
        assert ids == expected[1], f"batch, chunk, threads, hit = {setting}"
        hits.add(reused)
    return hits


@pytest.mark.parametrize("quant", ["F32", "Q8_0", "BF16"])
@pytest.mark.parametrize("name", list(models))
def test_one_hash(folder, name, quant):
    """A sample of the grid on every architecture: each value of each axis, and random pairs. BF16: with activations
    rounded to bf16, too."""
    checkpoint = open_checkpoint(make(folder, name, "gguf", quant))
    rng = np.random.default_rng(7)
    prompt = rng.integers(0, 320, 75).tolist()
    sample = [GRID[index] for index in rng.choice(len(GRID), 8, replace=False)]
    cover = [(BATCHES[i], CHUNKS[i], THREADS[i % 2], HITS[i]) for i in range(4)]
    hits = check_grid(checkpoint, prompt, cover + sample, bf16_activations=quant == "BF16")
    assert len(hits) >= 4, f"expected hits of several lengths, had {hits}"


@pytest.mark.parametrize("name", list(models))
def test_generation_equals_scoring(folder, name):
    """Decoding token by token past position 256 gives the logits that one pass over the text gives."""
    checkpoint = open_checkpoint(make(folder, name, "gguf", "F32"))
    engine, recorder = engine_on(checkpoint, 2, chunk=64, num_blocks=64)
    prompt = np.random.default_rng(2).integers(0, 320, 240).tolist()
    ids, _ = run(engine, [request("a", prompt, max_tokens=60)])["a"]
    whole = engine.logits(prompt + ids[:-1])
    assert not recorder.conflicts  # `logits` went through the recorder, too, and met every context again
    assert whole[len(prompt) - 1 :].argmax(axis=1).tolist() == ids  # greedy


@pytest.mark.parametrize("name", list(models))
def test_too_few_blocks_change_nothing(folder, name):
    """Requests that are preempted and computed again end with the same tokens and logits."""
    checkpoint = open_checkpoint(make(folder, name, "gguf", "Q8_0"))
    rng = np.random.default_rng(3)
    requests = [(f"r{i}", rng.integers(0, 320, int(rng.integers(20, 60))).tolist(), i) for i in range(6)]
    results, rows = [], []
    for num_blocks in (128, 12):
        engine, recorder = engine_on(checkpoint, 1, chunk=32, num_blocks=num_blocks)
        made = [request(name, ids, seed=seed, max_tokens=40) for name, ids, seed in requests]
        results.append({name: tokens for name, (tokens, _) in run(engine, made).items()})
        assert not recorder.conflicts
        rows.append(recorder.num_rows)
    assert results[0] == results[1]
    assert rows[1] > rows[0]  # it did have to compute again


@pytest.mark.parametrize("name", list(models))
def test_samples_of_one_request_share_its_prompt(folder, name):
    """n samples fork one computed prompt: copied blocks, the same logits, each sample as if alone."""
    checkpoint = open_checkpoint(make(folder, name, "gguf", "F32"))
    engine, recorder = engine_on(checkpoint, 1, chunk=64, num_blocks=128)
    prompt = np.random.default_rng(4).integers(0, 320, 37).tolist()  # ends within a block
    engine.add(Request("many", prompt, SamplingParams(max_tokens=20, temperature=1.5, seed=5, n=4)))
    samples = {}
    while engine.has_work:
        for event in engine.step():
            samples.setdefault(event.sample_index, []).append(event.token_id)
    assert len({tuple(ids) for ids in samples.values()}) == 4
    assert not recorder.conflicts
    for ids in samples.values():
        engine.logits(prompt + ids)
    assert not recorder.conflicts


@pytest.mark.slow
def test_one_hash_on_a_real_model():
    """SmolLM2-135M-Instruct: each axis in full, and random settings."""
    checkpoint = open_checkpoint(real_model("smollm2"))
    rng = np.random.default_rng(9)
    prompt = rng.integers(0, 20000, 150).tolist()
    cover = [(BATCHES[i], CHUNKS[i], THREADS[i % 2], HITS[i]) for i in range(4)]
    sample = [GRID[index] for index in rng.choice(len(GRID), 12, replace=False)]
    hits = check_grid(checkpoint, prompt, cover + sample)
    assert len(hits) >= 4, f"expected hits of several lengths, had {hits}"
