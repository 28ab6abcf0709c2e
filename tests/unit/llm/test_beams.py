"""The beam family on a loaded model: what it searches, under constraints, in any company; what it refuses."""

from __future__ import annotations

import json
from threading import Thread

import numpy as np
import pytest

import pellucid
from pellucid import LLM
from pellucid.errors import UsageError

PROMPT = [5, 7, 3]
ALLOWED = [1, 4, 5, 6, 9]  # 1 ends
T = 4

VARIANTS = {
    "beam": {"num_beams": 3},
    "never": {"num_beams": 3, "early_stopping": "never"},
    "best first": {"num_beams": 3, "early_stopping": "never", "best_first": True},
    "diverse": {"num_beams": 4, "num_groups": 2, "diversity": 0.5},
}


@pytest.fixture(scope="module")
def model(tiny_path):
    with LLM(tiny_path, num_threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def every(model):
    """{path: log-probability} of all outputs under allowed_ids."""
    found, waiting = {}, [((), 0.0)]
    while waiting:
        path, score = waiting.pop()
        logits = model.logits([*PROMPT, *path])[-1].astype(np.float64)[ALLOWED]
        logprobs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        for token, logprob in zip(ALLOWED, logprobs.tolist(), strict=True):
            child = (*path, token)
            if token == 1 or len(child) == T:
                found[child] = score + logprob
            else:
                waiting.append((child, score + logprob))
    return found


def outputs(result):
    return [(each.token_ids, each.logprob, each.value) for each in result.outputs]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_output_has_its_probability(model, every, variant):
    result = model.beam_search(PROMPT, max_tokens=T, allowed_ids=ALLOWED, **VARIANTS[variant])
    assert result.outputs and len({each.token_ids for each in result.outputs}) == len(result.outputs)
    for each in result.outputs:
        assert each.logprob == pytest.approx(every[each.token_ids], abs=1e-9)
    assert result.text == result.outputs[0].text
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("num_beams", [1, 3, 7])
def test_best_first_is_the_beam_from_fewer_rows(model, num_beams, length_penalty):
    arguments = {"max_tokens": 8, "num_beams": num_beams, "length_penalty": length_penalty}
    arguments |= {"early_stopping": "never", "stop_token_ids": list(range(20, 320, 5))}
    for prompt in (PROMPT, [9, 2], [100, 7, 7, 7]):
        plain = model.beam_search(prompt, **arguments)
        fast = model.beam_search(prompt, best_first=True, **arguments)
        assert outputs(fast) == outputs(plain)
        assert fast.work.rows <= plain.work.rows


def test_groups_are_told_apart(model):
    result = model.beam_search(
        PROMPT, max_tokens=T, num_beams=6, num_groups=3, diversity=100.0, allowed_ids=ALLOWED[1:]
    )
    assert len(result.groups) == len(result.group_steps) == 3
    taken = [{path[0] for _, path in steps[0].running} for steps in result.group_steps]
    assert len(taken[0] & taken[1]) == 0, "a token of the first group costs 100 nats"
    assert {each.token_ids for each in result.outputs} == {
        each.token_ids for group in result.groups for each in group
    }


def test_a_stochastic_beam_draws_outputs_of_the_distribution(model, every):
    first, again, other = (
        model.stochastic_beam_search(PROMPT, max_tokens=T, n=5, seed=seed, allowed_ids=ALLOWED)
        for seed in (3, 3, 4)
    )
    assert first.outputs == again.outputs != other.outputs and first.seed == 3
    assert len({each.token_ids for each in first.outputs}) == 5
    for each in first.outputs:
        assert each.logprob == pytest.approx(every[each.token_ids], abs=1e-9)
    whole = model.stochastic_beam_search(PROMPT, max_tokens=T, n=1000, allowed_ids=ALLOWED)
    assert {each.token_ids for each in whole.outputs} == set(every)
    assert sum(each.weight for each in whole.outputs) == pytest.approx(1, abs=1e-6)
    json.dumps(first.to_dict(), allow_nan=False)


def test_a_stochastic_beam_renormalises_what_is_forbidden(model):
    """A minimum length forbids the end; what is left sums to 1 at every step, so all outputs do."""
    whole = model.stochastic_beam_search(PROMPT, max_tokens=3, n=1000, min_tokens=2, allowed_ids=ALLOWED)
    assert all(len(each.token_ids) >= 3 for each in whole.outputs)
    assert sum(each.weight for each in whole.outputs) == pytest.approx(1, abs=1e-6)


CHOICES = ["ab", "abc", "b", "cab"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_beams_under_a_constraint(model, variant):
    result = model.beam_search("x", max_tokens=8, choices=CHOICES, **VARIANTS[variant])
    finished = [each.text for each in result.outputs if each.finish_reason == "eos"]
    assert finished and set(finished) <= set(CHOICES)
    state = model.compile_constraint(choices=CHOICES).state()
    masked = model.beam_search("x", max_tokens=8, constraint=state, **VARIANTS[variant])
    assert {each.text for each in masked.outputs if each.finish_reason == "eos"} <= set(CHOICES)


def test_a_stochastic_beam_under_a_constraint(model):
    for more in (
        {"choices": CHOICES},
        {"constraint": model.compile_constraint(choices=CHOICES).state()},
    ):
        found = model.stochastic_beam_search("x", max_tokens=12, n=200, seed=1, **more)
        assert {each.text for each in found.outputs} == set(CHOICES), "every choice, by some tokenisation"
        assert sum(each.weight for each in found.outputs) == pytest.approx(1, abs=1e-5)


def test_exact_search_under_a_constraint(model):
    result = model.search("x", max_tokens=6, n=50, choices=CHOICES, must_end=True)
    assert result.certified and {each.text for each in result.outputs} == set(CHOICES)
    assert result.certificate.verify(model)
    best = max(result.outputs, key=lambda each: each.logprob)
    wide = model.beam_search(
        "x", max_tokens=6, num_beams=50, choices=CHOICES, early_stopping="never", length_penalty=0
    )
    assert wide.outputs[0].token_ids == best.token_ids == result.outputs[0].token_ids


@pytest.mark.parametrize("variant", VARIANTS)
def test_company_does_not_change_a_beam(model, tiny_path, variant):
    """The same bits beside other work, with few places and few blocks."""
    alone = model.beam_search(PROMPT, max_tokens=12, **VARIANTS[variant])
    with LLM(tiny_path, num_threads=2, max_sequences=2, context_length=32, kv_memory=1 << 20) as small:
        assert outputs(small.beam_search(PROMPT, max_tokens=12, **VARIANTS[variant])) == outputs(alone)
    found = []
    others = [
        Thread(target=lambda: found.append(model.beam_search(PROMPT, max_tokens=12, **VARIANTS[variant])))
        for _ in range(2)
    ]
    for thread in others:
        thread.start()
    model.generate([[9, 9], [8]], max_tokens=20, temperature=1.0, seed=1)
    for thread in others:
        thread.join()
    assert [outputs(each) for each in found] == [outputs(alone)] * 2


def test_an_error_amid_a_beam_gives_everything_back(model):
    def broken(token_ids, logits):
        if len(token_ids) > len(PROMPT) + 2:
            raise ValueError("enough")
        return logits

    for search in (
        lambda **more: model.beam_search(PROMPT, num_beams=3, **more),
        lambda **more: model.beam_search(PROMPT, num_beams=4, num_groups=2, **more),
        lambda **more: model.stochastic_beam_search(PROMPT, n=3, **more),
    ):
        with pytest.raises(pellucid.PellucidError, match="enough"):
            search(max_tokens=9, logits_processors=[broken])
    engine = model._driver._engine
    assert not engine.scheduler.has_work and not engine.scheduler.parked
    assert engine.pool.num_used == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"num_groups": 2}, "divisor of num_beams=3"),
        ({"diversity": 0.5}, "num_groups of at least 2"),
        ({"num_beams": 4, "num_groups": 2, "diversity": -1.0}, "from 0 to"),
        ({"num_beams": 4, "num_groups": 2, "best_first": True}, "one beam"),
        ({"best_first": True}, "'never'"),
        ({"best_first": "no"}, "best_first: expected True or False"),
        ({"best_first": True, "early_stopping": True, "length_penalty": 0.0}, "'never'"),
        ({"early_stopping": "always"}, "early_stopping"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"length_penalty": "1"}, "length_penalty"),
        ({"num_beams": 0}, "at least 1"),
    ],
)
def test_what_no_beam_does_is_refused(model, more, said):
    with pytest.raises(UsageError, match=said):
        model.beam_search(PROMPT, max_tokens=T, **{"num_beams": 3, **more})
