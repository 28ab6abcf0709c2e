"""2,000 requests of which 30% are cancelled in every phase: nothing leaks, nothing sticks, the others are as alone."""

from __future__ import annotations

import random

import pytest
from toy_engine import VOCABULARY, ToyModel, ToyOps, check_idle, reference

from pellucid.engine.engine import Engine, Request
from pellucid.sampling.params import SamplingParams

CONTEXT = 128


def random_request(rng, request_id, heads):
    prompt = ([*rng.choice(heads)[: rng.randrange(60)], rng.randrange(VOCABULARY)])[: CONTEXT - 40]
    params = SamplingParams(
        max_tokens=rng.randrange(1, 30),
        temperature=rng.choice([0.0, 1.0]),
        seed=rng.randrange(100),
        n=rng.choice([1, 1, 1, 3]),
        ignore_eos=rng.random() < 0.5,
        overflow=rng.choice(["error", "slide"]),
        slide_drop=None,
    )
    return Request(request_id, prompt, params, {3, 17})


@pytest.mark.parametrize(("num_blocks", "chunk", "places"), [(40, 16, 6), (400, 64, 32), (17, 5, 4)])
def test_two_thousand_requests(num_blocks, chunk, places):
    rng = random.Random(num_blocks)
    heads = [[rng.randrange(VOCABULARY) for _ in range(80)] for _ in range(4)]
    engine = Engine(
        ToyModel(CONTEXT),
        ToyOps(),
        num_blocks=num_blocks,
        block_size=8,
        prefill_chunk=chunk,
        max_sequences=places,
    )
    requests = [random_request(rng, i, heads) for i in range(2000)]
    doomed = {i: rng.randrange(1, 40) for i in range(2000) if rng.random() < 0.3}  # after so many steps
    paused: dict[int, int] = {}
    outputs: dict[tuple[int, int], tuple[list[int], str | None]] = {}
    born: dict[int, int] = {}
    step = arrived = 0
    while arrived < 2000 or engine.has_work or paused:
        step += 1
        assert step < 60000, "a request is stuck"
        while arrived < 2000 and len(engine._live) < 3 * places:
            engine.add(requests[arrived])
            born[arrived] = step
            arrived += 1
        for request_id in list(engine._live):
            if request_id in doomed and step - born[request_id] >= doomed[request_id]:
                assert engine.abort(request_id)
                paused.pop(request_id, None)
            elif request_id not in paused and rng.random() < 0.01:
                assert engine.pause(request_id)
                paused[request_id] = step + rng.randrange(1, 20)
        for request_id in [r for r, until in paused.items() if until <= step]:
            del paused[request_id]
            assert engine.resume(request_id)
        for event in engine.step():
            tokens, reason = outputs.setdefault((event.request_id, event.sample_index), ([], None))
            assert reason is None and event.token_id is not None and event.request_id not in paused
            tokens.append(event.token_id)
            outputs[event.request_id, event.sample_index] = (tokens, event.finish_reason)
    check_idle(engine)
    ended = [key for key, (_, reason) in outputs.items() if reason is not None]
    for request in requests:
        if request.request_id not in doomed:
            for sample in range(request.params.n):
                assert (request.request_id, sample) in ended
    for request_id, sample in rng.sample(ended, 400):
        assert outputs[request_id, sample] == reference(requests[request_id], CONTEXT, sample)
    assert num_blocks > 20 or engine.scheduler.num_preemptions > 0
