"""Guidance in the engine: two sequences that choose together, against two plain lists, in every kind of company."""

from __future__ import annotations

import numpy as np
import pytest
from toy_engine import VOCABULARY, PlainHistory, ToyModel, ToyOps, check_idle, drain, logits_of

from pellucid.engine.engine import Engine, Request
from pellucid.errors import ContextOverflowError
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Sampler

EOS = [7]


def expected(request, sample_index, context_length=512):
    """([token ids], finish reason) from two lists of tokens and the sampler."""
    params, sampler = request.params, Sampler(request.params, request.seed)
    history = PlainHistory(request.prompt_ids.tolist(), sample_index, set(EOS) | set(params.stop_token_ids))
    other = request.companion_ids.tolist()
    found = []
    while True:
        history.companion_logits = logits_of([*other, *found])
        token = sampler.choose(history, logits_of(history.tokens)).token_id
        history.tokens.append(token)
        history.num_generated += 1
        found.append(token)
        if token in EOS:
            return found, "eos"
        if token in params.stop_token_ids:
            return found, "stop"
        if len(found) == params.max_tokens:
            return found, "length"
        if max(len(history.tokens), len(other) + len(found)) >= context_length:
            return found, "context"


def requests(rng, count):
    made = []
    for i in range(count):
        prompt, other = (rng.integers(8, VOCABULARY, rng.integers(1, 40)).tolist() for _ in range(2))
        params = SamplingParams(
            guidance_scale=float(rng.choice([0.0, 1.5, 3.0])),
            temperature=float(rng.choice([0.0, 1.0])),
            seed=int(rng.integers(1000)),
            max_tokens=int(rng.integers(1, 25)),
            n=int(rng.choice([1, 1, 3])),
            stop_token_ids=[9],
        )
        made.append(Request(i, prompt, params, EOS, companion_ids=other))
    return made


@pytest.mark.parametrize("seed", range(12))
def test_pairs_are_two_plain_lists_whatever_the_room(seed):
    rng = np.random.default_rng(seed)
    block_size = int(rng.choice([4, 16]))
    num_blocks = int(rng.integers(-(-70 // block_size), 400 // block_size))  # often too few for one pair
    engine = Engine(
        ToyModel(), ToyOps(), num_blocks=num_blocks, block_size=block_size,
        prefill_chunk=int(rng.choice([1, 5, 64])), max_sequences=int(rng.choice([1, 2, 8])),
        prefix_caching=bool(rng.integers(2)),
    )  # fmt: skip
    pairs = requests(rng, 6)
    alone = [
        Request(f"plain {i}", rng.integers(8, VOCABULARY, 20).tolist(), SamplingParams(max_tokens=12), EOS)
        for i in range(3)
    ]
    for request in [*pairs, *alone]:
        engine.add(request)
    outputs, _ = drain(engine)
    for request in pairs:
        for sample in range(request.params.n):
            assert outputs[request.request_id, sample] == expected(request, sample)
    for request in alone:
        assert len(outputs[request.request_id, 0][0]) > 0


def test_pauses_and_aborts_between_any_two_passes():
    rng = np.random.default_rng(5)
    engine = Engine(ToyModel(), ToyOps(), num_blocks=40, block_size=4, prefill_chunk=3, max_sequences=4)
    kept, lost = requests(rng, 4), requests(rng, 8)[4:]
    for request in kept + lost:
        engine.add(request)
    outputs = {}
    for turn in range(3000):
        if not engine.has_work and turn > 50:
            break
        if turn < 50:
            which = kept[turn % 4].request_id
            engine.pause(which)
            engine.resume(which) if turn % 3 else None
        if turn == 6:
            assert [engine.abort(request.request_id) for request in lost] == [True] * 4
        if turn == 50:
            for request in kept:
                engine.pause(request.request_id)  # who is paused twice goes on once
                engine.resume(request.request_id)
        for event in engine.step():
            tokens, _ = outputs.get((event.request_id, event.sample_index), ([], None))
            outputs[event.request_id, event.sample_index] = ([*tokens, event.token_id], event.finish_reason)
    for request in kept:
        for sample in range(request.params.n):
            assert outputs[request.request_id, sample] == expected(request, sample)
    check_idle(engine)


def test_the_longer_of_the_two_fills_the_context():
    request = Request(0, [8, 9], SamplingParams(guidance_scale=2.0), [], companion_ids=[10] * 30)
    engine = Engine(ToyModel(), ToyOps(), num_blocks=8, block_size=16, context_length=40)
    engine.add(request)
    outputs, _ = drain(engine)
    assert outputs[0, 0][1] == "context" and len(outputs[0, 0][0]) == 10
    with pytest.raises(ContextOverflowError):
        engine.add(Request(1, [8], SamplingParams(guidance_scale=2.0), [], companion_ids=[10] * 41))
