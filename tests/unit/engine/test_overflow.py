"""A context that is full: error, stop, slide. A slide is exact: as a sequence that never had other tokens."""

from __future__ import annotations

import random

import pytest
from toy_engine import VOCABULARY, ToyModel, ToyOps, check_idle, drain, reference

from pellucid.engine.engine import Engine, Request
from pellucid.errors import ContextOverflowError, UsageError
from pellucid.overflow import slid_prompt
from pellucid.sampling.limits import slide_amount
from pellucid.sampling.params import SamplingParams

CONTEXT = 40


def engine_of(*, num_blocks=30, block_size=4, **options):
    return Engine(ToyModel(CONTEXT), ToyOps(), num_blocks=num_blocks, block_size=block_size, **options)


def slides(rng, request_id, **options):
    keep = rng.choice([0, 1, 3, 4, 9])
    params = SamplingParams(
        overflow="slide",
        slide_keep=keep,
        slide_drop=rng.choice([None, 1, 2, 5, CONTEXT - keep - 1]),
        max_tokens=rng.choice([1, 20, 150]),
        temperature=rng.choice([0.0, 1.0]),
        seed=rng.randrange(1000),
        repetition_penalty=rng.choice([1.0, 1.3]),
        frequency_penalty=rng.choice([0.0, 0.5]),
        min_tokens=rng.choice([0, 1]),
        ignore_eos=True,
        n=rng.choice([1, 1, 3]),
        **options,
    )
    prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, CONTEXT))]
    return Request(request_id, prompt, params, {3})


@pytest.mark.parametrize("num_blocks", [12, 60])
@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize("caching", [True, False])
def test_slides_are_exact_whatever_else_runs(num_blocks, chunk, caching):
    rng = random.Random(f"{num_blocks} {chunk} {caching}")
    engine = engine_of(num_blocks=num_blocks, prefill_chunk=chunk, max_sequences=5, prefix_caching=caching)
    requests = [slides(rng, i) for i in range(14)]
    for request in requests:
        engine.add(request)
    outputs, events = drain(engine)
    for request in requests:
        for sample in range(request.params.n):
            assert outputs[request.request_id, sample] == reference(request, CONTEXT, sample)
    assert any(event.dropped for event in events)


def test_every_drop_is_told_and_positions_follow():
    engine = engine_of()
    params = SamplingParams(overflow="slide", slide_keep=6, slide_drop=10, max_tokens=105, ignore_eos=True)
    engine.add(Request("a", range(20), params, ()))
    _, events = drain(engine)
    expected = 20
    for event in events:
        assert event.position == expected
        expected += 1
        if expected == CONTEXT:
            assert event.dropped == (6, 10)
            expected -= 10
        else:
            assert event.dropped is None
    assert len(events) == 105 and sum(event.dropped is not None for event in events) == 9


def test_a_slide_equals_a_fresh_request_on_the_tokens_that_are_left():
    engine = engine_of()
    params = SamplingParams(overflow="slide", slide_keep=5, slide_drop=17, max_tokens=60, ignore_eos=True)
    prompt = list(range(25))
    engine.add(Request("a", prompt, params, ()))
    tokens = drain(engine)[0]["a", 0][0]
    whole = prompt + tokens[: CONTEXT - 25]
    left = whole[:5] + whole[22:]
    engine.add(Request("b", left, SamplingParams(max_tokens=CONTEXT - len(left), ignore_eos=True), ()))
    assert drain(engine)[0]["b", 0][0] == tokens[CONTEXT - 25 :][: CONTEXT - len(left)]


def test_an_aborted_slide_leaves_nothing():
    for steps in range(1, 60, 7):
        engine = engine_of(prefill_chunk=3)
        engine.add(slides(random.Random(steps), "a"))
        for _ in range(steps):
            engine.step()
        engine.abort("a")
        check_idle(engine)


def test_stop_takes_any_max_tokens_and_ends_where_the_context_is_full():
    engine = engine_of()
    engine.add(Request("a", range(30), SamplingParams(max_tokens=999, overflow="stop", ignore_eos=True)))
    tokens, reason = drain(engine)[0]["a", 0]
    assert (len(tokens), reason) == (10, "context")
    for overflow in ("error", "stop"):
        with pytest.raises(ContextOverflowError):
            engine.add(Request("b", range(CONTEXT), SamplingParams(overflow=overflow)))
    with pytest.raises(ContextOverflowError):
        engine.add(Request("b", range(30), SamplingParams(max_tokens=11)))


def test_noise_never_comes_twice():
    """The key of the noise goes on counting where positions come again: constant logits draw no cycle."""

    class Flat(ToyModel):
        def __call__(self, batch, cache):
            return super().__call__(batch, cache) * 0

    engine = Engine(Flat(CONTEXT), ToyOps(), num_blocks=30, block_size=4)
    params = SamplingParams(
        overflow="slide", slide_drop=CONTEXT - 1, max_tokens=200, temperature=1.0, seed=1, ignore_eos=True
    )
    engine.add(Request("a", [1], params, ()))
    tokens = drain(engine)[0]["a", 0][0]
    pieces = [tuple(tokens[i : i + CONTEXT - 1]) for i in range(0, 195, CONTEXT - 1)]
    assert len(set(pieces)) == len(pieces)


def test_amounts():
    assert slide_amount(4, None, 40) == 18
    assert slide_amount(38, None, 40) == 1
    assert slide_amount(0, 39, 40) == 39
    for keep, drop in ((39, None), (0, 40), (30, 10)):
        with pytest.raises(UsageError, match="leave nothing of the context of 40"):
            slide_amount(keep, drop, 40)
    with pytest.raises(UsageError, match="leave nothing"):
        engine_of().add(Request("a", [1], SamplingParams(overflow="slide", slide_keep=39, max_tokens=1)))


def test_a_prompt_that_is_too_long_slides_until_a_token_fits():
    for length in range(1, 200):
        for keep, drop in ((0, None), (0, 1), (5, 7), (38, 1), (3, 36)):
            cut = slid_prompt(length, SamplingParams(slide_keep=keep, slide_drop=drop), CONTEXT)
            if length < CONTEXT:
                assert cut is None
                continue
            assert cut is not None and cut.start == keep and cut.after == 0
            amount = slide_amount(keep, drop, CONTEXT)
            assert keep < length - cut.count < CONTEXT and cut.count % amount == 0
            assert length - (cut.count - amount) >= CONTEXT  # once less would not have been enough
