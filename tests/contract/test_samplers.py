"""Every registered stage: what is drawn after it follows the distribution that it states; orders of other engines.

The samplers' own definitions are held in tests/unit/sampling. Here: the draw, for each stage of the registry, and the
whole chains of vLLM and llama.cpp restated in plain NumPy that sorts everything.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from pellucid.sampling.base import samplers
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.record import Past
from pellucid.sampling.sampler import Sampler

VOCABULARY = 50
DRAWS = 4000

# A setting of each stage at which it changes the distribution.
SETTINGS = {
    "adaptive_p": {"adaptive_target": 0.2},
    "allowed_ids": {"allowed_ids": range(5, 30)},
    "bad_words": {"bad_words_ids": [[2, 9], [7]]},
    "banned_ids": {"banned_ids": range(5, 30)},
    "begin_suppress": {"begin_suppress_tokens": range(5, 30)},
    "constraint": {"choices": ["in the place of any: `Allowed` stands for what it compiles to"]},
    "dry": {"dry_multiplier": 2.0},
    "dynatemp": {"dynatemp_range": 0.5},
    "encoder_no_repeat": {"encoder_no_repeat_ngram_size": 1},
    "encoder_repetition": {"encoder_repetition_penalty": 1.8},
    "epsilon": {"epsilon_cutoff": 0.02},
    "eta": {"eta_cutoff": 0.1},
    "exponential_decay": {"exponential_decay_factor": 3.0},
    "force_at": {"force_at": {0: 7}},
    "forced_tokens": {"forced_eos_ids": [1, 3, 5], "max_tokens": 1},
    "guidance": {"guidance_scale": 2.0},
    "functions": {"logits_processors": [lambda ids, l: l * np.float32(0.3)]},
    "logit_bias": {"logit_bias": {3: 2.0, 8: -2.0}},
    "min_p": {"min_p": 0.2},
    "min_tokens": {"min_tokens": 3},
    "mirostat": {"mirostat": 2, "mirostat_tau": 1.5},
    "no_repeat_ngram": {"no_repeat_ngram_size": 2},
    "penalties": {"repetition_penalty": 1.8},
    "sequence_bias": {"sequence_bias": [[[2, 9], 3.0]]},
    "temperature": {"temperature": 2.0},
    "top_h": {"top_h": 0.6},
    "top_k": {"top_k": 7},
    "top_n_sigma": {"top_n_sigma": 1.0},
    "top_p": {"top_p": 0.7},
    "typical": {"typical_p": 0.6},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.05},
}


class Allowed:
    """A compiled constraint that allows ids 5 to 29 everywhere."""

    def follower(self):
        return self

    def at(self, sample_index, output):
        return self

    def mask(self):
        flags = np.zeros(-(-VOCABULARY // 32) * 32, np.uint8)
        flags[5:30] = 1
        return np.packbits(flags, bitorder="little").view(np.uint32)


def row(seed=0):
    return (np.random.default_rng(seed).standard_normal(VOCABULARY) * 1.5).astype(np.float32)


def past_of(sample_index, num_prompt=5):
    ids, stop_ids = np.array([1, 2, 9, 1, 2], np.int32), np.array([0, 4], np.int32)
    return Past(ids, num_prompt, sample_index, stop_ids, companion_logits=row(77))


def chi_square(p, drawn):
    """(statistic, the bound that one sound run in 10,000 exceeds), rare tokens taken together."""
    counts = np.bincount(drawn, minlength=len(p))
    assert np.all(counts[p == 0] == 0), "an excluded token was drawn"
    order = np.argsort(p[p > 0])
    expected, observed = (p[p > 0] * len(drawn))[order], counts[p > 0][order]
    group = (np.cumsum(expected) // 10).astype(int)
    expected = np.array([expected[group == g].sum() for g in np.unique(group)])
    observed = np.array([observed[group == g].sum() for g in np.unique(group)])
    degrees = len(expected) - 1
    if degrees == 0:
        return 0.0, 1.0
    bound = degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3  # Wilson-Hilferty
    return float(np.sum((observed - expected) ** 2 / expected)), bound


@pytest.mark.parametrize("name", list(samplers))
def test_draws_follow_the_stated_distribution(name):
    assert name in SETTINGS, "a new stage: add a setting at which it changes the distribution"
    params = SamplingParams(**{"temperature": 1, **SETTINGS[name]})
    if name == "constraint":
        params = params.bound(Allowed())
    num_prompt = 4 if name == "exponential_decay" else 5
    x = row()
    stated = Sampler(params, 3).process(past_of(0, num_prompt), x)
    assert not np.array_equal(stated, x) and stated.max() > -np.inf
    p = np.exp(stated.astype(np.float64) - float(stated.max()))
    p /= p.sum()
    sampler = Sampler(params, 3)
    drawn = [sampler.choose(past_of(i, num_prompt), x).token_id for i in range(DRAWS)]
    statistic, bound = chi_square(p, drawn)
    assert statistic < bound
    if name == "temperature":  # the test can fail: the untempered distribution is refused
        q = np.exp(x.astype(np.float64) - float(x.max()))
        statistic, bound = chi_square(q / q.sum(), drawn)
        assert statistic > bound


@pytest.mark.parametrize("order", ["pellucid", "hf", "vllm", "llamacpp"])
def test_at_its_defaults_every_order_is_the_identity(order):
    x = row()
    params = SamplingParams(order=order, temperature=1)
    assert np.array_equal(Sampler(params, 1).process(past_of(0), x), x)
    assert Sampler(SamplingParams(order=order), 1).stages == {}


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def ranked(z):
    return np.lexsort((np.arange(len(z)), -z))


def keep(z, ids):
    out = np.full_like(z, -np.inf)
    out[ids] = z[ids]
    return out


def head_of_mass(z, p):
    order = ranked(z)
    order = order[z[order] > -np.inf]
    mass = np.cumsum(softmax(z)[order])
    return order[: int(np.count_nonzero(mass < p - 1e-12)) + 1]


def vllm(x, past, c):
    """Bad words in the output, minimum tokens, bias, penalties, temperature, min_p, top_k with ties, top_p."""
    z, ids, out = x.astype(np.float64), past.token_ids.tolist(), past.token_ids[past.num_prompt :].tolist()
    for word in c["bad_words_ids"]:
        if len(word) == 1 or out[len(out) - len(word) + 1 :] == word[:-1]:
            z[word[-1]] = -np.inf
    if len(out) < c["min_tokens"]:
        z[past.stop_ids] = -np.inf
    for t, b in c["logit_bias"].items():
        z[t] += b
    for t in set(ids):
        z[t] = z[t] / c["repetition_penalty"] if z[t] > 0 else z[t] * c["repetition_penalty"]
    for t in set(out):
        z[t] -= c["frequency_penalty"] * out.count(t) + c["presence_penalty"]
    z /= c["temperature"]
    p = softmax(z)
    z[p < c["min_p"] * p.max()] = -np.inf
    z[z < np.sort(z)[::-1][c["top_k"] - 1]] = -np.inf
    return keep(z, head_of_mass(z, c["top_p"]))


def llamacpp(x, past, c):
    """Bias, penalties over the last 64, top-n-sigma, top_k, typical, top_p, min_p, temperature."""
    z, last = x.astype(np.float64), past.token_ids[-64:].tolist()
    for t, b in c["logit_bias"].items():
        z[t] += b
    for t in set(last):
        z[t] = z[t] / c["repetition_penalty"] if z[t] > 0 else z[t] * c["repetition_penalty"]
        z[t] -= c["frequency_penalty"] * last.count(t) + c["presence_penalty"]
    finite = z[z > -np.inf]
    z[z < z.max() - c["top_n_sigma"] * finite.std()] = -np.inf
    z = keep(z, ranked(z)[: c["top_k"]])
    p = softmax(z)
    entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
    left = np.flatnonzero(p > 0)
    order = left[np.lexsort((left, np.abs(-np.log(p[left]) - entropy)))]
    z = keep(z, order[: int(np.count_nonzero(np.cumsum(p[order]) <= c["typical_p"])) + 1])
    z = keep(z, head_of_mass(z, c["top_p"]))
    p = softmax(z)
    z[p < c["min_p"] * p.max()] = -np.inf
    return z / c["temperature"]


COMMON = {
    "temperature": 1.3,
    "top_k": 20,
    "top_p": 0.85,
    "min_p": 0.05,
    "repetition_penalty": 1.3,
    "presence_penalty": 0.4,
    "frequency_penalty": 0.2,
    "logit_bias": {3: 1.5, 20: -2.0},
}
ENGINES = {
    "vllm": (vllm, COMMON | {"bad_words_ids": [[1, 2], [7]], "min_tokens": 4}),
    "llamacpp": (llamacpp, COMMON | {"top_n_sigma": 2.2, "typical_p": 0.95}),
}


@pytest.mark.parametrize("order", ENGINES)
def test_chains_of_other_engines(order):
    chain, settings = ENGINES[order]
    sampler, rng = Sampler(SamplingParams(order=order, **settings), 0), np.random.default_rng(2)
    for seed in range(200):
        tokens = rng.integers(0, 12, int(rng.integers(2, 120))).astype(np.int32)
        past = Past(tokens, int(rng.integers(1, len(tokens) + 1)), 0, np.array([0, 4], np.int32))
        wanted, got = chain(row(seed), past, settings), sampler.process(past, row(seed))
        assert np.array_equal(got > -np.inf, wanted > -np.inf), seed
        assert got == pytest.approx(wanted.astype(np.float32), rel=1e-5, abs=1e-5)


def test_ties_at_the_edge_of_top_k():
    x = np.array([1, 2, 2, 2, 0], np.float32)
    sizes = {}
    for order in ("pellucid", "hf", "vllm", "llamacpp"):
        out = Sampler(SamplingParams(order=order, temperature=1, top_k=2), 0).process(past_of(0), x)
        sizes[order] = np.flatnonzero(out > -np.inf).tolist()
    assert sizes == {"pellucid": [1, 2], "hf": [1, 2, 3], "vllm": [1, 2, 3], "llamacpp": [1, 2]}
