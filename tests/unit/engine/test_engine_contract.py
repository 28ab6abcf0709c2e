"""What a request gets does not depend on what else runs: batch, chunk, pool pressure, prefix hits, drafts."""

from __future__ import annotations

import random
from typing import ClassVar

import pytest
from toy_engine import CONTEXT, VOCABULARY, ToyModel, ToyOps, drain, reference

from pellucid.decoding.base import strategies
from pellucid.decoding.sample import Sample
from pellucid.engine.engine import Engine, Request
from pellucid.sampling.params import SamplingParams

EOS = frozenset({3, 17})


def engine_of(*, num_blocks=64, block_size=8, context=CONTEXT, **options):
    return Engine(ToyModel(context), ToyOps(), num_blocks=num_blocks, block_size=block_size, **options)


def random_request(rng, request_id, base, *, longest, strategy="sample"):
    """Prompts share beginnings of `base` of random length, so that every kind of prefix hit occurs."""
    shared = base[: rng.choice([0, 1, rng.randrange(len(base)), len(base)])]
    own = [rng.randrange(VOCABULARY) for _ in range(rng.choice([0, 1, rng.randrange(longest)]))]
    prompt = (shared + own or [rng.randrange(VOCABULARY)])[:longest]
    params = SamplingParams(
        max_tokens=rng.choice([1, 2, 9, 30]),
        temperature=rng.choice([0.0, 0.7, 1.5]),
        top_k=rng.choice([0, 5]),
        top_p=rng.choice([1.0, 0.8]),
        repetition_penalty=rng.choice([1.0, 1.2]),
        min_tokens=rng.choice([0, 1]),
        ignore_eos=rng.random() < 0.5,
        stop_token_ids=rng.choice([(), (5,)]),
        n=rng.choice([1, 1, 2, 4]),
        seed=rng.randrange(2**40),
    )
    return Request(request_id, prompt, params, EOS, strategy)


def expect(requests, context_length):
    return {(r.request_id, i): reference(r, context_length, i) for r in requests for i in range(r.params.n)}


@pytest.mark.parametrize("chunk", [1, 7, 64, 256])
@pytest.mark.parametrize("batch", [1, 2, 5, 32])
@pytest.mark.parametrize(
    "num_blocks", [18, 64]
)  # 18: preemption is the rule; one long request only just fits
@pytest.mark.parametrize("caching", [True, False])
def test_output_is_as_alone(chunk, batch, num_blocks, caching):
    rng = random.Random(f"{chunk} {batch} {num_blocks}")
    base = [rng.randrange(VOCABULARY) for _ in range(70)]
    engine = engine_of(
        num_blocks=num_blocks, prefill_chunk=chunk, max_sequences=batch, prefix_caching=caching
    )
    requests = [random_request(rng, i, base, longest=110) for i in range(12)]
    arrivals = list(requests)
    outputs = {}
    while arrivals or engine.has_work:
        for _ in range(min(len(arrivals), rng.choice([0, 1, 6]))):
            engine.add(arrivals.pop(0))
        for event in engine.step():
            tokens, reason = outputs.setdefault((event.request_id, event.sample_index), ([], None))
            assert reason is None
            assert event.position == len(requests[event.request_id].prompt_ids) + len(tokens)
            tokens.append(event.token_id)
            outputs[event.request_id, event.sample_index] = (tokens, event.finish_reason)
    drain(engine)
    assert outputs == expect(requests, engine.context_length)
    if num_blocks == 18 and batch == 32 and chunk == 256:
        assert engine.scheduler.num_preemptions > 0
    if chunk == 256 and num_blocks == 64 and batch == 32:
        assert engine.model.max_rows > 1


@pytest.mark.parametrize("block_size", [1, 4, 16])
@pytest.mark.parametrize("hit", [0, 1, 2, 15, 16, 17, 31, 32, 39, 40])
def test_prefix_hits_of_any_length(block_size, hit):
    """A second request reuses exactly the tokens that it shares with the first, never its own last one."""
    rng = random.Random(hit)
    first = [rng.randrange(1, VOCABULARY) for _ in range(40)]
    prompt = first[:hit] + ([(first[hit] + 1) % VOCABULARY, *first[: 40 - hit]] if hit < 40 else [])
    engine = engine_of(block_size=block_size, num_blocks=512 // block_size)
    engine.add(Request("first", first, SamplingParams(max_tokens=1)))
    drain(engine)
    second = Request("second", prompt, SamplingParams(max_tokens=5, n=2, temperature=1, seed=7))
    engine.add(second)
    outputs, events = drain(engine)
    assert outputs == expect([second], engine.context_length)
    by_sample = {e.sample_index: e for e in reversed(events)}
    assert by_sample[0].num_reused == min(hit, len(prompt) - 1)
    assert by_sample[0].num_computed == len(prompt) - by_sample[0].num_reused
    assert by_sample[1].num_reused == len(prompt) and by_sample[1].num_computed == 0


def test_prompt_is_computed_once_for_n_samples():
    engine = engine_of()
    request = Request(0, list(range(50)), SamplingParams(n=8, max_tokens=3, temperature=1, seed=1))
    engine.add(request)
    outputs, _ = drain(engine)
    assert outputs == expect([request], engine.context_length)
    assert engine.model.num_rows == 50 + 8 * 2


def test_more_samples_than_places():
    engine = engine_of(max_sequences=3, num_blocks=20)
    requests = [
        Request(i, [i, 2, 3], SamplingParams(n=10, max_tokens=20, temperature=1, seed=i)) for i in range(3)
    ]
    for request in requests:
        engine.add(request)
    outputs, _ = drain(engine)
    assert outputs == expect(requests, engine.context_length)


def test_a_long_prompt_never_starves_those_that_decode():
    engine = engine_of(prefill_chunk=4, num_blocks=64)
    engine.add(Request("short", [1, 2], SamplingParams(max_tokens=40)))
    engine.step()
    engine.add(Request("long", [3] * 100, SamplingParams(max_tokens=1)))
    for _ in range(20):
        assert [e.request_id for e in engine.step()] == ["short"]
    drain(engine)


def test_the_first_is_never_preempted_and_order_is_kept():
    engine = engine_of(num_blocks=10, block_size=4, context=40, max_sequences=8)
    requests = [Request(i, [i] * 12, SamplingParams(max_tokens=28)) for i in range(6)]
    for request in requests:
        engine.add(request)
    outputs, events = drain(engine)
    assert engine.scheduler.num_preemptions > 0
    assert outputs == expect(requests, 40)
    assert [e.request_id for e in events if e.finish_reason] == list(range(6))
    first = [e for e in events if e.request_id == 0]
    assert first[-1].num_computed == 12 + 27, "the first was recomputed"


def test_full_pool_and_partial_hits_make_progress():
    """One sequence as large as the pool, again and again, with hits that end inside of blocks."""
    engine = engine_of(num_blocks=4, block_size=4, context=16)
    for length in [15, 15, 14, 13, 15, 3, 15, 7, 15]:
        request = Request(0, list(range(length)), SamplingParams())
        engine.add(request)
        outputs, _ = drain(engine)
        assert outputs == expect([request], 16)


class _Guess(Sample):
    """Drafts from a generator: what a plain draw says at each row decides."""

    proposes: ClassVar[bool] = True
    rng = random.Random(0)

    def __init__(self, params, seed):
        super().__init__(params, seed)
        self.request = None

    def advance(self, history, drafts, logits):
        choices, tokens = [], history.token_ids.tolist()
        for i, row in enumerate(logits):
            choices.append(self._sampler.choose(_Extended(history, tokens), row))
            if i < len(drafts) and choices[-1].token_id != drafts[i]:
                break
            tokens.append(choices[-1].token_id)
        return choices


class _Extended:
    def __init__(self, history, tokens):
        import numpy as np

        self.token_ids = np.array(tokens, np.int32)
        self.num_prompt, self.sample_index = history.num_prompt, history.sample_index
        self.stop_ids = history.stop_ids
        self.num_dropped = history.num_dropped
        self.companion_logits = history.companion_logits
        self.num_generated = history.num_generated + len(tokens) - len(history.token_ids)


class _Random(_Guess):
    def propose(self, history):
        return [self.rng.randrange(VOCABULARY) for _ in range(self.rng.randrange(6))]


class _Oracle(_Guess):
    """Knows most of what comes."""

    known: ClassVar[dict] = {}

    def propose(self, history):
        tokens = self.known[history.sample_index, *history.token_ids[: history.num_prompt].tolist()]
        done = history.num_generated
        drafts = tokens[done : done + self.rng.randrange(1, 6)]
        return [t if self.rng.random() < 0.9 else 0 for t in drafts]


strategies["sample"]
strategies.register("test_random_drafts")(_Random)
strategies.register("test_oracle_drafts")(_Oracle)


@pytest.mark.parametrize("strategy", ["test_random_drafts", "test_oracle_drafts"])
@pytest.mark.parametrize("num_blocks", [18, 64])
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_drafts_never_change_the_output(strategy, num_blocks, chunk):
    rng = random.Random(f"{num_blocks} {chunk}")
    base = [rng.randrange(VOCABULARY) for _ in range(40)]
    engine = engine_of(num_blocks=num_blocks, prefill_chunk=chunk, max_sequences=8)
    requests = [random_request(rng, i, base, longest=100, strategy=strategy) for i in range(10)]
    expected = expect(requests, engine.context_length)
    for r in requests:
        for i in range(r.params.n):
            _Oracle.known[(i, *r.prompt_ids.tolist())] = expected[r.request_id, i][0]
        engine.add(r)
    assert drain(engine)[0] == expected


def test_good_drafts_save_passes():
    params = SamplingParams(max_tokens=60, ignore_eos=True)
    plain, drafted = Request(0, [9, 9], params), Request(0, [9, 9], params, strategy="test_oracle_drafts")
    engine = engine_of()
    _Oracle.known[0, 9, 9] = reference(plain, engine.context_length)[0]
    engine.add(drafted)
    assert drain(engine)[0] == expect([plain], engine.context_length)
    assert engine.model.num_passes < 45


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_logits_of_every_position(chunk):
    import numpy as np
    from toy_engine import logits_of

    engine = engine_of(num_blocks=18, prefill_chunk=chunk)
    rng = random.Random(chunk)
    requests = [Request(i, [i, 1, 2], SamplingParams(max_tokens=50, ignore_eos=True)) for i in range(6)]
    for request in requests:
        engine.add(request)
    tokens = [rng.randrange(VOCABULARY) for _ in range(engine.context_length)]
    outputs = {}
    for step in range(200):
        if step in (3, 4, 20):
            got = engine.logits(tokens)
            assert np.array_equal(got, [logits_of(tokens[: i + 1]) for i in range(len(tokens))])
        for e in engine.step():
            outputs.setdefault((e.request_id, 0), []).append(e.token_id)
    assert engine.scheduler.num_preemptions > 0
    drain(engine)
    assert outputs == {key: tokens for key, (tokens, _) in expect(requests, engine.context_length).items()}
