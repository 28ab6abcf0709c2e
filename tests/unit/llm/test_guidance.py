"""Classifier-free guidance on a loaded model: its definition, and that everything else works with it."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import LLM, SamplingParams, UsageError
from pellucid.sampling.random import gumbel_argmax

PROMPT, NEGATIVE = [5, 7, 3, 100], [9, 30]


@pytest.fixture(scope="module")
def model(tiny_path):
    with LLM(tiny_path, num_threads=1) as loaded:
        yield loaded


def log_softmax(row):
    row = row.astype(np.float64)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def stated(model, prompt, negative, scale, count, temperature=0.0, seed=0):
    """Tokens by the definition, each from two whole rows of `llm.logits`."""
    found = []
    for _ in range(count):
        c = log_softmax(model.logits([*prompt, *found])[-1])
        u = log_softmax(model.logits([*negative, *found])[-1])
        row = (u + scale * (c - u)).astype(np.float32)
        if temperature:
            row /= np.float32(temperature)
            found.append(gumbel_argmax(row, seed, 0, len(prompt) + len(found)))
        else:
            found.append(int(row.argmax()))
    return found


@pytest.mark.parametrize("scale", [0.0, 1.5, 4.0, -1.0])
@pytest.mark.parametrize("negative", [NEGATIVE, None])
def test_tokens_by_the_definition(model, scale, negative):
    arguments = {"guidance_scale": scale, "negative_prompt": negative, "ignore_eos": True, "max_tokens": 12}
    expected = stated(model, PROMPT, negative or PROMPT[-1:], scale, 12)
    assert model.generate(PROMPT, **arguments).token_ids == expected
    drawn = model.generate(PROMPT, temperature=0.8, seed=5, **arguments).token_ids
    assert drawn == stated(model, PROMPT, negative or PROMPT[-1:], scale, 12, 0.8, 5)


def test_a_scale_of_one_is_no_guidance(model):
    assert (
        model.generate(PROMPT, max_tokens=8, guidance_scale=1.0, negative_prompt=NEGATIVE).token_ids
        == model.generate(PROMPT, max_tokens=8).token_ids
    )
    why = SamplingParams(negative_prompt="x").without_effect()
    assert why == {"negative_prompt": "guidance_scale is not set"}


def test_company_room_and_streams_change_nothing(model, tiny_path):
    arguments = {
        "guidance_scale": 2.0,
        "negative_prompt": NEGATIVE,
        "max_tokens": 20,
        "temperature": 1.0,
        "seed": 3,
    }
    alone = model.generate(PROMPT, ignore_eos=True, **arguments).token_ids
    guided = SamplingParams(**arguments, ignore_eos=True)
    together = model.generate([PROMPT, [8], PROMPT], [guided, SamplingParams(max_tokens=30), guided])
    assert together[0].token_ids == together[2].token_ids == alone
    with LLM(tiny_path, num_threads=2, max_sequences=1, prefill_chunk=1, context_length=32) as small:
        assert small.generate(PROMPT, ignore_eos=True, **arguments).token_ids == alone
    stream = model.stream(PROMPT, ignore_eos=True, **arguments)
    assert [chunk.token_id for chunk in stream if chunk.token_id is not None] == alone
    samples = model.generate(PROMPT, ignore_eos=True, n=3, **arguments).outputs
    assert samples[0].token_ids == alone and samples[1].token_ids != alone


def test_stop_strings_constraints_and_logprobs(model):
    base = model.generate("ab", guidance_scale=2.0, negative_prompt="c", max_tokens=20, ignore_eos=True)
    stop = base.text[5:7]
    cut = model.generate(
        "ab", guidance_scale=2.0, negative_prompt="c", max_tokens=20, ignore_eos=True, stop=stop
    )
    assert cut.text == base.text[: base.text.index(stop)] and cut.finish_reason == "stop"
    chosen = model.generate("ab", guidance_scale=3.0, max_tokens=9, choices=["xyz", "xy", "q"], logprobs=1)
    assert chosen.text in ("xyz", "xy", "q")
    for token in chosen.logprobs:
        assert token.constraint is not None and token.constraint.allowed_logprob <= 0


@pytest.mark.parametrize("speculation", ["auto", "always", "jacobi"])
def test_speculation_beside_guidance_changes_nothing(model, speculation):
    arguments = {
        "guidance_scale": 2.0,
        "negative_prompt": NEGATIVE,
        "ignore_eos": True,
        "max_tokens": 16,
        "n": 2,
    }
    arguments |= {"temperature": 0.7, "seed": 2}
    plain = [sample.token_ids for sample in model.generate(PROMPT * 3, **arguments).outputs]
    drafted = model.generate(PROMPT * 3, speculation=speculation, **arguments)
    assert [sample.token_ids for sample in drafted.outputs] == plain


def test_what_flows_under_guidance_is_captured_of_the_prompt_alone(model):
    from pellucid import Capture

    result = model.generate(
        PROMPT,
        guidance_scale=2.0,
        negative_prompt=NEGATIVE,
        max_tokens=5,
        ignore_eos=True,
        capture=Capture(("final",)),
    )
    again = model.trace([*PROMPT, *result.token_ids[:-1]], capture=Capture(("final",)))
    assert np.array_equal(result.captured["final"], again["final"])


def test_nothing_is_left_behind(model):
    stream = model.stream(
        PROMPT, guidance_scale=2.0, negative_prompt=NEGATIVE, ignore_eos=True, max_tokens=50
    )
    next(stream)
    stream.close()
    engine = model._driver._engine
    model.generate([4], max_tokens=1)
    assert engine.pool.num_used == 0 and not engine.scheduler.parked and not engine._live


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.begin(PROMPT, guidance_scale=2.0), "driven by hand"),
        (lambda m: m.generate(PROMPT, guidance_scale=2.0, overflow="slide", max_tokens=4), "slide together"),
        (lambda m: m.generate(PROMPT, guidance_scale=2.0, negative_prompt=[9999]), "vocabulary"),
        (lambda m: m.generate(PROMPT, guidance_scale=2.0, negative_prompt=[]), "negative_prompt"),
        (lambda m: m.generate(PROMPT, guidance_scale=2.0, order="vllm"), "guidance"),
        (lambda m: m.generate(PROMPT, guidance_scale=1e9), "guidance_scale"),
    ],
)
def test_what_guidance_does_not_do(model, call, said):
    with pytest.raises(UsageError, match=said):
        call(model)


def test_a_negative_prompt_that_is_too_long(model):
    from pellucid import ContextOverflowError

    with pytest.raises(ContextOverflowError):
        model.generate(PROMPT, guidance_scale=2.0, negative_prompt=[5] * (model.context_length + 1))
