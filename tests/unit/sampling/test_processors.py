"""Every registered processor: the identity at its default, deterministic, never all -inf; each formula."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from toy_vocabulary import ToyVocabulary

from pellucid.constraints.base import Source
from pellucid.constraints.compiled import Compiler
from pellucid.sampling.base import samplers
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import NoTokenLeftError, Sampler

VOCABULARY = 200


class History:
    companion_logits = np.random.default_rng(5).standard_normal(VOCABULARY).astype(np.float32)
    sample_index = 0
    seed = 7
    states = {"mirostat": (6.0,), "adaptive_p": (2.5, 10.0)}  # noqa: RUF012

    def __init__(self, tokens=(1, 2, 3, 2, 2), num_prompt=2, stop_ids=(0, 4)):
        self.token_ids = np.array(tokens, np.int32)
        self.num_prompt = num_prompt
        self.num_generated, self.num_dropped = len(tokens) - num_prompt, 0
        self.stop_ids = np.array(stop_ids, np.int32)


def logits(seed=0):
    return (np.random.default_rng(seed).standard_normal(VOCABULARY) * 3).astype(np.float32)


def flatten(token_ids, logits):
    return logits * np.float32(0.5)


def ban(token_ids, logits):
    logits[token_ids] = -np.inf
    return logits


VALUES = {
    "int": [1, 2, 3, 150],
    "float": [0.05, 0.25, 0.9, 1.0, 2.0],
    "ids": [[3], [0, 1, 2, 199]],
    "bias": [{5: 3.0}, {0: -1000, 199: 1000}],
    "sequences": [[[3]], [[2, 2, 7], [9], [3, 2]]],
    "sequence_bias": [[[[2, 2, 7], 3.0], [[7], -1.0]]],
    "functions": [[flatten], [ban, flatten]],
}
NEEDED = {  # what some stages refuse to be without
    "xtc": {"temperature": 1},
    "dynatemp": {"temperature": 1},
    "forced_tokens": {"max_tokens": 4},
}


def stages(name):
    """The stage with some values of each of its parameters that are not the default."""
    if name == "constraint":  # its values say nothing without a vocabulary; see tests/unit/constraints
        singles = [chr(i) for i in range(33, 127)]
        pairs = [a + b for a in singles[:2] for b in singles]
        pieces = ToyVocabulary(*(singles + pairs)[: VOCABULARY - 1])
        compiler = Compiler(pieces, VOCABULARY, pieces.eos_ids)
        for text in ("[^%]*", "[!-5]{4,9}"):
            params = SamplingParams(regex=text)
            yield params.bound(compiler.compile(Source(*params.constraint_source()))).stages()[name]
        return
    parameters = {p.name: p for p in SamplingParams.fields()}
    for p in parameters.values():
        if p.processor != name:
            continue
        for value in VALUES.get(p.kind, p.choices):
            if p.kind in ("int", "float") and not p._in_range(value):
                continue
            switch = {q: VALUES[parameters[q].kind][1] for q in p.modifies[:1]}
            params = SamplingParams(**{**NEEDED.get(name, {}), **switch, p.name: value})
            yield params.stages().get(name) or samplers[name]()


@pytest.mark.parametrize("name", list(samplers))
def test_identity_at_its_default(name):
    x = logits()
    assert np.array_equal(samplers[name]()(History(), x.copy()), x)
    assert dataclasses.is_dataclass(samplers[name]) and hash(samplers[name]()) == hash(samplers[name]())


@pytest.mark.parametrize("name", list(samplers))
def test_pure_and_never_empty(name):
    for processor in stages(name):
        for seed in range(5):
            x = logits(seed)
            first = processor(History(), x.copy())
            assert first.dtype == np.float32 and first.shape == x.shape
            assert np.array_equal(processor(History(), x.copy()), first)
            assert first.max() > -np.inf and not np.isnan(first).any()
            if processor.keeps_argmax:
                assert np.argmax(first) == np.argmax(x)


@pytest.mark.parametrize("name", [name for name in samplers if samplers[name].scope == "token"])
def test_scope_token_means_each_logit_by_itself(name):
    """The other logits are replaced by others: the first twenty come out the same."""
    for processor in stages(name):
        x, y = logits(1), logits(2)
        y[:20] = x[:20]
        first, second = processor(History(), x.copy()), processor(History(), y.copy())
        assert np.array_equal(first[:20], second[:20])


@pytest.mark.parametrize("name", [name for name in samplers if samplers[name].scope == "top"])
def test_scope_top_means_the_head_decides(name):
    """What lies below everything kept may be anything lower."""
    for processor in stages(name):
        x = logits(1)
        kept = processor(History(), x.copy()) > -np.inf
        y = np.where(kept, x, x - np.float32(50)).astype(np.float32)
        assert np.array_equal(processor(History(), y) > -np.inf, kept)


def after(x, history=None, **params):
    return Sampler(SamplingParams(**params), 0).process(history or History(), x)


def test_penalties_by_the_definition():
    x = logits()
    out = after(x, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.25)
    prompt, output = [1, 2], [3, 2, 2]
    for i in range(VOCABULARY):
        l = float(x[i])
        if i in prompt + output:
            l = l / 1.3 if l > 0 else l * 1.3
        if i in output:
            l -= 0.25 * output.count(i) + 0.5
        assert out[i] == pytest.approx(l, rel=1e-6)


def test_temperature_bias_and_masks():
    x = logits()
    assert np.array_equal(after(x, temperature=0.7, logprobs=0), x / np.float32(0.7))
    biased = after(x, logit_bias={3: 2.5, 9: -1})
    assert biased[3] == x[3] + np.float32(2.5) and biased[9] == x[9] - np.float32(1)
    assert np.array_equal(np.delete(biased, [3, 9]), np.delete(x, [3, 9]))
    assert np.flatnonzero(after(x, allowed_ids=[9, 3]) > -np.inf).tolist() == [3, 9]
    assert np.flatnonzero(after(x, banned_ids=[9, 3]) == -np.inf).tolist() == [3, 9]
    assert np.flatnonzero(after(x, min_tokens=4) == -np.inf).tolist() == [0, 4]
    assert np.array_equal(after(x, min_tokens=3), x)


def test_cuts_see_the_tempered_distribution_that_is_left():
    """temperature, then top-k, then top-p over what top-k left, then min-p, each by sorting everything."""
    for seed in range(20):
        x = logits(seed)
        got = after(x, temperature=1.7, top_k=30, top_p=0.8, min_p=0.05)
        z = (x / np.float32(1.7)).astype(np.float64)
        order = np.lexsort((np.arange(VOCABULARY), -z))[:30]
        p = np.exp(z[order] - z.max())
        order = order[: int(np.argmax(np.cumsum(p) >= 0.8 * p.sum())) + 1]
        order = order[z[order] - z.max() >= math.log(0.05)]
        assert np.flatnonzero(got > -np.inf).tolist() == sorted(order.tolist())


def test_logits_are_left_as_they_are():
    x = logits()
    before = x.copy()
    Sampler(SamplingParams(temperature=0.5, top_k=3, repetition_penalty=2.0, banned_ids=[1]), 0).choose(
        History(), x
    )
    assert np.array_equal(x, before)


def test_greedy_is_the_lowest_of_the_largest():
    x = np.zeros(VOCABULARY, np.float32)
    assert Sampler(SamplingParams(), 0).choose(History(), x).token_id == 0
    assert Sampler(SamplingParams(banned_ids=[0, 1], top_k=1), 0).choose(History(), x).token_id == 2


def test_extremes_of_temperature():
    x = logits(3)
    cold, hot = Sampler(SamplingParams(temperature=1e-4), 0), Sampler(SamplingParams(temperature=100), 0)
    histories = [History(range(n), 0) for n in range(1, 100)]
    assert {cold.choose(h, x).token_id for h in histories} == {int(np.argmax(x))}
    assert len({hot.choose(h, x).token_id for h in histories}) > 50


def test_position_and_sample_index_key_the_draw():
    x = np.zeros(VOCABULARY, np.float32)
    sampler = Sampler(SamplingParams(temperature=1), 5)
    one, other = History(range(9), 3), History(range(10, 19), 1)
    assert sampler.choose(one, x).token_id == sampler.choose(other, x).token_id, "only the position counts"
    other.sample_index = 1
    assert sampler.choose(one, x).token_id != sampler.choose(other, x).token_id


def test_no_token_left():
    with pytest.raises(NoTokenLeftError, match="banned_ids exclude every token"):
        Sampler(SamplingParams(banned_ids=range(VOCABULARY)), 0).choose(History(), logits())
    with pytest.raises(NoTokenLeftError, match="the model gave every token"):
        Sampler(SamplingParams(temperature=1), 0).choose(History(), np.full(9, -np.inf, np.float32))
