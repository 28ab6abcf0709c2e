"""The record of a choice: made again from (logits, history, parameters, key, states) it gives the token, always."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pellucid.errors import UsageError
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.random import gumbel
from pellucid.sampling.record import Past, explain_choice
from pellucid.sampling.sampler import Sampler

CHAINS = [
    {},
    {"repetition_penalty": 1.5, "banned_ids": [0, 1]},
    {"temperature": 1},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.02, "frequency_penalty": 0.5},
    {"temperature": 1.2, "typical_p": 0.7, "xtc_probability": 0.5, "xtc_threshold": 0.05},
    {"temperature": 1, "order": "llamacpp", "mirostat": 2, "mirostat_tau": 3},
    {
        "temperature": 1,
        "order": "llamacpp",
        "adaptive_target": 0.2,
        "dry_multiplier": 0.8,
        "dry_breakers": [],
        "top_n_sigma": 2,
    },
    {"temperature": 1, "order": "hf", "eta_cutoff": 0.01, "top_h": 0.8, "no_repeat_ngram_size": 2},
    {"temperature": 1, "logits_processors": [lambda ids, l: -l]},
]


def rows(count, size=80):
    rng = np.random.default_rng(5)
    return [(rng.standard_normal(size) * 2).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: ",".join(chain) or "greedy")
def test_a_choice_made_again_gives_its_token(chain):
    params, seed, stop = SamplingParams(**chain), 77, np.array([0], np.int32)
    sampler, tokens, states = Sampler(params, seed), [4, 5, 6], []
    table = rows(60)
    for x in table:
        past = Past(np.array(tokens, np.int32), 3, 2, stop)
        states.append(sampler.states(past))
        tokens.append(sampler.choose(past, x).token_id)
    for i, x in enumerate(table):
        record = explain_choice(
            x, tokens, params, seed, 2, 3 + i, num_prompt=3, stop_ids=[0], states=states[i] or None
        )
        assert (record.token_id, record.position, record.states) == (tokens[3 + i], 3 + i, states[i])
        check_record(record, x, params, seed)
        assert explain_choice(
            x, tokens, params, seed, 2, 3 + i, num_prompt=3, stop_ids=[0], states=record.states
        ) == record  # fmt: skip


def check_record(record, x, params, seed):
    assert record.raw_logit == x[record.token_id]
    order = np.lexsort((np.arange(len(x)), -x))
    assert order[record.raw_rank] == record.token_id
    assert [stage.name for stage in record.stages] == list(Sampler(params, seed).stages)
    left = len(x)
    for stage in record.stages:
        assert stage.left == left - stage.removed and 0 <= stage.removed_probability < 1
        assert (stage.removed_probability > 0) == (stage.removed > 0)
        left = stage.left
    assert record.num_left == left and record.margin >= 0
    if record.runner_up is not None:
        runner_up = record.runner_up_logit + record.runner_up_noise
        assert record.score - runner_up == record.margin
    if params.greedy:
        assert record.noise == 0 == record.runner_up_noise
    else:
        noise = gumbel(seed, 2, record.position, np.array([record.token_id], np.int32))
        assert record.noise == noise[0] and record.score == record.logit + record.noise


def test_what_stages_did_is_told():
    x = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    params = SamplingParams(
        temperature=0.5, top_k=2, presence_penalty=2.0, order=["top_k", "penalties", "temperature"]
    )
    record = explain_choice(x, [3, 0], params, 1, num_prompt=1)
    top_k, penalties, temperature = record.stages
    assert (top_k.removed, top_k.left, top_k.moved, top_k.reordered) == (2, 2, 0, False)
    assert top_k.removed_probability == pytest.approx(0.3, abs=1e-6)
    assert (penalties.removed, penalties.moved, penalties.reordered, penalties.top) == (0, 1, True, 1)
    assert (temperature.moved, temperature.reordered) == (2, False)
    assert record.num_left == 2 and {record.token_id, record.runner_up} == {0, 1}


def test_the_last_token_left_has_no_runner_up():
    record = explain_choice(rows(1)[0], [1], SamplingParams(allowed_ids=[7]), 1, num_prompt=1)
    assert (record.token_id, record.runner_up, record.margin, record.logprob) == (7, None, math.inf, 0.0)
    assert record.stages[0].removed == 79


def test_misuse():
    x, feedback = rows(1)[0], SamplingParams(temperature=1, mirostat=2)
    with pytest.raises(UsageError, match="position: expected 1 .* to 3, got 9"):
        explain_choice(x, [1, 2, 3], SamplingParams(), 1, 0, 9, num_prompt=1)
    with pytest.raises(UsageError, match="mirostat depends on earlier choices; give the states"):
        explain_choice(x, [1, 2, 3], feedback, 1, num_prompt=1)
    assert explain_choice(x, [1, 2, 3], feedback, 1, num_prompt=3).states == {"mirostat": (10.0,)}


def test_a_constraint_is_told_with_what_the_model_wanted():
    from toy_vocabulary import ToyVocabulary

    from pellucid.constraints.base import Source
    from pellucid.constraints.compiled import Compiler

    vocabulary = ToyVocabulary("a", "b", "c", "d")
    params = SamplingParams(choices=["b", "cd"])
    compiler = Compiler(vocabulary, vocabulary.vocabulary_size, vocabulary.eos_ids)
    params = params.bound(compiler.compile(Source(*params.constraint_source())))
    logits = np.log(np.array([0.4, 0.1, 0.3, 0.15, 0.05], np.float32))
    record = explain_choice(logits, [0], params, 0, num_prompt=1)
    assert record.token_id == 2 and record.constraint.wanted == 0 and not record.constraint.forced
    assert record.constraint.allowed_logprob == pytest.approx(np.log(0.4), abs=1e-6)
    after = explain_choice(logits, [0, 2], params, 0, num_prompt=1)
    assert after.token_id == 3 and after.constraint.forced
    assert explain_choice(logits, [0], SamplingParams(), 0, num_prompt=1).constraint is None


def test_guidance_is_explained_with_the_row_of_its_companion():
    rng = np.random.default_rng(1)
    logits, other = (rng.standard_normal(50).astype(np.float32) for _ in range(2))
    params = SamplingParams(guidance_scale=2.0)
    record = explain_choice(logits, [0], params, 0, num_prompt=1, companion_logits=other)
    c, u = (row.astype(np.float64) - np.log(np.exp(row.astype(np.float64)).sum()) for row in (logits, other))
    assert record.token_id == int(np.argmax(u + 2 * (c - u))) and record.stages[0].name == "guidance"
