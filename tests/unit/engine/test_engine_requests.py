"""How requests end, and what is refused: every reason, every phase, errors in somebody else's code."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from toy_engine import VOCABULARY, ToyModel, ToyOps, check_idle, drain, logits_of, reference

from pellucid.engine.engine import Engine, Request
from pellucid.errors import ContextOverflowError, UsageError
from pellucid.sampling import sampler as sampler_module
from pellucid.sampling.params import SamplingParams

CONTEXT = 64


def engine_of(**options):
    options = {"num_blocks": 32, "block_size": 4, "prefill_chunk": 8, **options}
    return Engine(ToyModel(CONTEXT), ToyOps(), **options)


def run(prompt=(1, 2, 3), stop_ids=(), engine=None, **params):
    engine = engine or engine_of()
    request = Request("r", prompt, SamplingParams(**params), stop_ids)
    engine.add(request)
    outputs, events = drain(engine)
    assert outputs == {
        ("r", i): reference(request, engine.context_length, i) for i in range(request.params.n)
    }
    return events


def greedy(prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(np.argmax(logits_of(tokens))))
    return tokens[len(prompt) :]


def test_length():
    events = run(max_tokens=5)
    assert [e.token_id for e in events] == greedy([1, 2, 3], 5)
    assert [e.finish_reason for e in events] == [None] * 4 + ["length"]
    assert [e.position for e in events] == [3, 4, 5, 6, 7]


def test_the_context_is_filled_to_its_last_position():
    events = run()
    assert len(events) == CONTEXT - 3 and events[-1].finish_reason == "context"
    assert events[-1].position == CONTEXT - 1


def test_eos_stop_id_and_ignore_eos():
    tokens = greedy([1, 2, 3], 10)
    end = next(i for i, t in enumerate(tokens) if i >= 3 and t not in tokens[:i])
    eos = run(stop_ids={tokens[end]}, max_tokens=20)[-1]
    assert (eos.finish_reason, eos.token_id, eos.stop) == ("eos", tokens[end], None)
    stop = run(stop_token_ids=[tokens[end]], max_tokens=20)[-1]
    assert (stop.finish_reason, stop.token_id, stop.stop) == ("stop", tokens[end], tokens[end])
    both = run(stop_ids={tokens[end]}, stop_token_ids=[tokens[end]], max_tokens=20)[-1]
    assert both.finish_reason == "eos"
    ignored = run(stop_ids={tokens[end]}, ignore_eos=True, max_tokens=10)
    assert [e.token_id for e in ignored] == tokens and ignored[-1].finish_reason == "length"
    still = run(stop_ids={tokens[end]}, stop_token_ids=[tokens[end]], ignore_eos=True, max_tokens=20)
    assert still[-1].finish_reason == "stop" and len(still) == end + 1


@pytest.mark.parametrize("least", [1, 4, 12])
def test_min_tokens_holds_every_ending_token_back(least):
    stops = greedy([1, 2, 3], 6)
    events = run(stop_ids=stops[:3], stop_token_ids=stops[3:], min_tokens=least, max_tokens=12)
    tokens = [e.token_id for e in events]
    assert len(tokens) >= least
    assert not set(tokens[: least - 1]) & set(stops)
    ignoring = run(stop_ids=stops, ignore_eos=True, min_tokens=12, max_tokens=12)
    assert [e.token_id for e in ignoring] == greedy([1, 2, 3], 12), "ignored ends are ordinary tokens"


def test_logprobs_are_exact():
    events = run(max_tokens=4, temperature=0.8, top_k=7, seed=3, logprobs=5)
    tokens = [1, 2, 3]
    for event in events:
        raw = logits_of(tokens).astype(np.float64)
        raw -= np.log(np.sum(np.exp(raw)))
        order = sorted(range(VOCABULARY), key=lambda i: (-raw[i], i))
        scaled = (logits_of(tokens) / np.float32(0.8)).astype(np.float64)
        scaled[order[7:]] = -np.inf
        scaled -= np.log(np.sum(np.exp(scaled)))
        got = event.logprobs
        assert got.raw == pytest.approx(raw[event.token_id], abs=1e-12)
        assert got.processed == pytest.approx(scaled[event.token_id], abs=1e-6)
        assert [i for i, _ in got.top_raw] == order[:5] == [i for i, _ in got.top_processed]
        assert [p for _, p in got.top_raw] == pytest.approx(raw[order[:5]], abs=1e-12)
        assert [p for _, p in got.top_processed] == pytest.approx(scaled[order[:5]], abs=1e-6)
        tokens.append(event.token_id)
    assert run(max_tokens=1, logprobs=0)[0].logprobs.top_raw == ()
    assert run(max_tokens=1)[0].logprobs is None


def test_logprobs_do_not_change_the_choice():
    options = {
        "max_tokens": 9,
        "temperature": 0,
        "top_p": 0.5,
        "min_p": 0.3,
        "top_k": 3,
        "repetition_penalty": 1.3,
    }
    assert [e.token_id for e in run(**options)] == [e.token_id for e in run(**options, logprobs=2)]


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_abort_in_every_phase(steps, num_samples):
    """Queued, in the middle of the prompt, just forked, decoding: the others go on as if nothing had been."""
    engine = engine_of(max_sequences=2)
    doomed = Request("doomed", list(range(30)), SamplingParams(n=num_samples, temperature=1, seed=1))
    other = Request("other", [5] * 9, SamplingParams(max_tokens=12))
    last = Request("last", list(range(20)), SamplingParams(max_tokens=3))
    for request in (doomed, other, last):
        engine.add(request)
    tokens = {"other": [], "last": []}
    for step in range(200):
        if step == steps:
            assert engine.abort("doomed") is True
            assert engine.abort("doomed") is False and engine.finish("doomed", 0, "stop") is False
        for event in engine.step():
            assert step < steps or event.request_id != "doomed"
            if event.request_id != "doomed":
                tokens[event.request_id].append(event.token_id)
    assert not engine.has_work
    check_idle(engine)
    for request in (other, last):
        assert tokens[request.request_id] == reference(request, CONTEXT)[0]


def test_finish_ends_one_sample():
    engine = engine_of()
    request = Request(0, [1, 2], SamplingParams(n=3, max_tokens=6, temperature=1, seed=9))
    engine.add(request)
    outputs = {}
    while engine.has_work:
        for event in engine.step():
            outputs.setdefault(event.sample_index, []).append(event.token_id)
            if event.sample_index == 1 and len(outputs[1]) == 2:
                assert engine.finish(0, 1, "stop") is True
                assert engine.finish(0, 1, "stop") is False
    expected = [reference(request, CONTEXT, i)[0] for i in range(3)]
    assert outputs == {0: expected[0], 1: expected[1][:2], 2: expected[2]}
    check_idle(engine)


@dataclass(frozen=True)
class Faulty:
    """Raises at the third token."""

    order: ClassVar[int] = 0
    keeps_argmax: ClassVar[bool] = False

    def __call__(self, history, logits):
        if len(history.token_ids) == history.num_prompt + 2:
            raise ZeroDivisionError("a processor's own fault")
        return logits


@pytest.mark.parametrize("num_samples", [1, 3])
def test_an_error_in_a_processor_ends_its_request_alone(num_samples, monkeypatch):
    plain = SamplingParams.stages
    monkeypatch.setattr(
        SamplingParams, "stages", lambda self: plain(self) | ({"faulty": Faulty()} if self.seed == 13 else {})
    )
    monkeypatch.setattr(SamplingParams, "set_of", lambda self, stages: [])
    engine = engine_of()
    engine.add(Request("bad", [1, 2], SamplingParams(n=num_samples, temperature=1, seed=13)))
    good = Request("good", [3, 4], SamplingParams(max_tokens=8, n=2, temperature=1, seed=14))
    engine.add(good)
    outputs, events = drain(engine)
    for i in range(num_samples):
        assert outputs["bad", i][1] == "error" and len(outputs["bad", i][0]) == 2
    for i in range(2):
        assert outputs["good", i] == reference(good, CONTEXT, i)
    wrong = [e for e in events if e.finish_reason == "error"]
    assert len(wrong) == num_samples
    assert all(e.error == "ZeroDivisionError: a processor's own fault" and e.token_id is None for e in wrong)


def test_logits_that_are_no_numbers_end_the_request(monkeypatch):
    engine = engine_of()
    model = engine.model

    class Broken:
        architecture, layers, width = "toy", (), 1
        vocabulary_size, context_length = VOCABULARY, CONTEXT

        def __call__(self, batch, cache):
            out = model(batch, cache)
            out[batch.token_ids[batch.logit_rows] == 7, 11] = np.nan
            return out

    engine.model = Broken()
    engine.add(Request("bad", [7], SamplingParams(max_tokens=3)))
    good = Request("good", [8], SamplingParams(max_tokens=1))
    engine.add(good)
    outputs, events = drain(engine)
    assert outputs["good", 0] == reference(good, CONTEXT)
    (bad,) = [e for e in events if e.request_id == "bad"]
    assert bad.finish_reason == "error" and "token 11 is NaN" in bad.error


def test_constraints_that_leave_nothing_say_so():
    engine = engine_of()
    engine.add(Request(0, [1], SamplingParams(allowed_ids=[4, 5], min_tokens=2), stop_ids={4, 5}))
    _, (event,) = drain(engine)
    assert event.finish_reason == "error" and event.error.startswith(sampler_module.NoTokenLeftError.__name__)
    assert "allowed_ids, min_tokens exclude every token" in event.error


def test_a_model_that_raises_can_be_asked_again():
    engine = engine_of()
    request = Request(0, list(range(20)), SamplingParams(max_tokens=6, n=2, temperature=1, seed=0))
    engine.add(request)
    model, rng = engine.model, random.Random(0)

    class Flaky:
        architecture, layers, width = "toy", (), 1
        vocabulary_size, context_length = VOCABULARY, CONTEXT

        def __call__(self, batch, cache):
            if rng.random() < 0.5:
                raise OSError("gone for a moment")
            return model(batch, cache)

    engine.model = Flaky()
    outputs = {0: [], 1: []}
    failures = 0
    while engine.has_work:
        try:
            for event in engine.step():
                outputs[event.sample_index].append(event.token_id)
        except OSError:
            failures += 1
    assert failures > 2
    assert outputs == {i: reference(request, CONTEXT, i)[0] for i in range(2)}
    check_idle(engine)


@pytest.mark.parametrize(
    ("prompt", "params", "error", "message"),
    [
        ([], {}, UsageError, "at least one token id"),
        ([1.0, 2.0], {}, UsageError, "integers"),
        ([True], {}, UsageError, "integers"),
        ([-1], {}, UsageError, "2\\^31"),
        ([VOCABULARY], {}, UsageError, "not in the vocabulary"),
        ([1], {"stop_token_ids": [VOCABULARY]}, UsageError, "stop_token_ids: token id 61"),
        ([1], {"logit_bias": {99: 1}}, UsageError, "logit_bias: token id 99"),
        ([1], {"logprobs": 62}, UsageError, "logprobs=62"),
        ([1] * CONTEXT, {}, ContextOverflowError, "by 1; shorten"),
        ([1] * 60, {"max_tokens": 10}, ContextOverflowError, "exceed the model's context of 64 by 6"),
    ],
)
def test_what_cannot_be_is_refused_at_once(prompt, params, error, message):
    engine = engine_of()
    with pytest.raises(error, match=message):
        engine.add(Request(0, prompt, SamplingParams(**params)))
    assert not engine.has_work
    check_idle(engine)


def test_the_cache_bounds_the_context_and_the_error_says_so():
    engine = engine_of(num_blocks=5)
    assert engine.context_length == 20
    with pytest.raises(ContextOverflowError, match=r"20 positions of the KV cache \(5 blocks of 4\) by 2"):
        engine.add(Request(0, [1] * 12, SamplingParams(max_tokens=10)))
    assert run(engine=engine)[-1].finish_reason == "context"


def test_a_request_id_in_use_is_refused():
    engine = engine_of()
    engine.add(Request("x", [1], SamplingParams(max_tokens=1)))
    with pytest.raises(UsageError, match="'x' is in use"):
        engine.add(Request("x", [1]))
    drain(engine)
    engine.add(Request("x", [1], SamplingParams(max_tokens=1)))
    drain(engine)


def test_seed_is_told_where_none_is_given():
    first, second = (Request(0, [1], SamplingParams(temperature=1)) for _ in range(2))
    assert first.seed != second.seed
    engine = engine_of()
    engine.add(first)
    outputs = drain(engine)[0]
    again = Request(0, [1], SamplingParams(temperature=1, seed=first.seed))
    assert outputs[0, 0] == reference(again, CONTEXT)


def test_idle_steps_do_nothing():
    engine = engine_of()
    assert engine.step() == [] and not engine.has_work and engine.model.num_passes == 0


def test_steady_memory_over_many_requests():
    """Nothing is kept of requests that have ended but the cache, which is bounded by the pool."""
    engine = engine_of(num_blocks=16)
    rng = random.Random(1)
    for i in range(300):
        engine.add(Request(i, [rng.randrange(VOCABULARY) for _ in range(10)], SamplingParams(max_tokens=2)))
        if i % 3 == 0:
            engine.abort(i)
        drain(engine)
    nodes = sum(node is not None for node in engine.pool._nodes)
    assert nodes == engine.pool.num_cached <= 16


def test_a_context_length_that_was_asked_for():
    engine = engine_of(context_length=10)
    assert run(engine=engine)[-1].position == 9
    with pytest.raises(ContextOverflowError, match="exceed the context_length of 10 by 1"):
        engine.logits([1] * 11)
    for wrong in (0, CONTEXT + 1):
        with pytest.raises(UsageError, match="context_length: expected 1 to 64"):
            engine_of(context_length=wrong)
    with pytest.raises(UsageError, match="expected 1 to 20 .* the KV cache 20"):
        engine_of(num_blocks=5, context_length=21)


@pytest.mark.parametrize("wrong", [{"prefill_chunk": 0}, {"max_sequences": 0}, {"num_blocks": 0}])
def test_engine_sizes_are_checked(wrong):
    with pytest.raises(UsageError, match="expected"):
        engine_of(**wrong)
    with pytest.raises(UsageError, match="no 'nothing' in decoding"):
        engine_of().add(Request(0, [1], strategy="nothing"))
