"""Stages that look at the history, that need chance, or that feed back: each by its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pellucid.sampling.dry import Dry
from pellucid.sampling.functions import LogitsFunctionError
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.random import XTC_STREAM, philox, uniform
from pellucid.sampling.record import Past
from pellucid.sampling.sampler import Sampler

VOCABULARY = 30


def history(tokens, num_prompt=2, stop_ids=(0, 4), sample_index=0):
    ids = np.array(tokens, np.int32)
    return Past(ids, num_prompt, sample_index, np.array(stop_ids, np.int32))


def logits(seed=0, size=VOCABULARY):
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def after(x, past, **params):
    return Sampler(SamplingParams(**params), 5).process(past, x)


def random_history(rng, symbols=4, longest=40):
    tokens = rng.integers(0, symbols, int(rng.integers(1, longest))).tolist()
    return history(tokens, int(rng.integers(1, len(tokens) + 1)))


def removed(x, past, **params):
    return set(np.flatnonzero(after(x, past, **params) == -np.inf).tolist())


def test_penalties_by_window_and_scope():
    past = history([1, 2, 3, 2, 2, 5], 3)
    for scope, last_n, repeated, counted in (
        ("openai", None, [1, 2, 3, 5], [2, 2, 5]),
        ("openai", 4, [3, 2, 5], [2, 2, 5]),
        ("openai", 2, [2, 5], [2, 5]),
        ("all", None, [1, 2, 3, 5], [1, 2, 3, 2, 2, 5]),
        ("all", 4, [3, 2, 5], [3, 2, 2, 5]),
        ("output", None, [2, 5], [2, 2, 5]),
        ("output", 1, [5], [5]),
    ):
        x = logits()
        got = after(
            x,
            past,
            repetition_penalty=1.3,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            penalty_scope=scope,
            penalty_last_n=last_n,
        )
        for i in range(VOCABULARY):
            l = float(x[i])
            if i in repeated:
                l = l / 1.3 if l > 0 else l * 1.3
            if i in counted:
                l -= 0.25 * counted.count(i) + 0.5
            assert got[i] == pytest.approx(l, rel=1e-6), (scope, last_n, i)


def test_no_repeat_ngram_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(100):
        past = random_history(rng)
        tokens, prompt = past.token_ids.tolist(), past.token_ids[: past.num_prompt].tolist()
        for n in (1, 2, 3):

            def bans(text, n=n, tokens=tokens):
                grams = {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}
                begin = tokens[len(tokens) - n + 1 :] if len(tokens) >= n - 1 else [None]
                return {t for t in range(VOCABULARY) if (*begin, t) in grams}

            assert removed(logits(), past, no_repeat_ngram_size=n) == bans(tokens)
            assert removed(logits(), past, encoder_no_repeat_ngram_size=n) == bans(prompt)


def dry_by_definition(tokens, allowed, breakers):
    """token -> length of the longest repetition that it would prolong; the window cut at the last breaker."""
    longest = len(tokens)
    for i in reversed(range(len(tokens))):
        ends = [len(b) for b in breakers if tokens[i : i + len(b)] == list(b)]
        if ends:
            longest = len(tokens) - i - max(ends)
            break
    found = {}
    for end in range(len(tokens) - 1):
        m = 0
        while m < longest and m <= end and tokens[end - m] == tokens[len(tokens) - 1 - m]:
            m += 1
        if m >= allowed and longest >= allowed:
            found[tokens[end + 1]] = max(m, found.get(tokens[end + 1], 0))
    return {t: m for t, m in found.items() if (t,) not in breakers}


@pytest.mark.parametrize("breakers", [[], [(2,)], [(2, 1)], [(3,), (1, 0, 1), (1,)]])
def test_dry_by_its_definition(breakers):
    rng = np.random.default_rng(1)
    changed = 0
    for _ in range(150):
        past, x = random_history(rng), logits(3)
        for allowed, last_n in ((1, None), (2, None), (2, 9), (3, 30)):
            window = past.token_ids.tolist()[-(last_n or 10**6) :]
            lengths = dry_by_definition(window, allowed, breakers) if len(window) > allowed else {}
            got = after(
                x,
                past,
                dry_multiplier=0.8,
                dry_base=1.5,
                dry_allowed_length=allowed,
                dry_last_n=last_n,
                dry_breakers=breakers,
            )
            wanted = [
                float(x[t]) - (0.8 * 1.5 ** (lengths[t] - allowed) if t in lengths else 0) for t in range(30)
            ]
            assert got == pytest.approx(np.array(wanted, np.float32), rel=1e-6, abs=1e-6)
            changed += bool(lengths)
    assert changed > 50


def test_dry_never_overflows():
    past = history([1] * 3000)
    got = after(logits(), past, dry_multiplier=1000, dry_base=100)
    assert np.isfinite(got).all() and got[1] < -1e29
    assert Dry(dry_multiplier=1.0).longest(past.token_ids) == 3000


def test_sequences():
    x = logits()
    past = history([7, 8, 1, 2], 3)
    bias = {
        (1, 2, 5): 2.0,
        (2, 5): 0.5,
        (3, 5): 9.0,
        (6,): -1.0,
        (7, 8, 1, 2, 9): 1.5,
        (0, 7, 8, 1, 2, 10): 1.0,
    }
    got = after(x, past, sequence_bias=bias)
    wanted = {5: 2.5, 6: -1.0, 9: 1.5}
    assert np.array_equal(got, [x[i] + np.float32(wanted.get(i, 0)) for i in range(VOCABULARY)])
    words = [(1, 2, 5), (2, 6), (3, 7), (8,), (0,)]
    assert removed(x, past, bad_words_ids=words) == {5, 6, 8}, "0 alone would end the text: it is no bad word"
    assert removed(x, past, bad_words_ids=words, bad_words_scope="output") == {6, 8}


def test_first_and_last_tokens():
    x = logits()
    assert removed(x, history([1, 2]), begin_suppress_tokens=[3, 9]) == {3, 9}
    assert removed(x, history([1, 2, 5]), begin_suppress_tokens=[3, 9]) == set()
    forced = after(x, history([1, 2, 5, 5]), forced_eos_ids=[4, 6], max_tokens=3)
    assert np.flatnonzero(forced > -np.inf).tolist() == [4, 6] and forced[4] == forced[6] == 0
    assert np.array_equal(after(x, history([1, 2, 5]), forced_eos_ids=[4], max_tokens=3), x)
    second = {"forced_bos_ids": [3], "begin_suppress_tokens": [9]}
    assert np.flatnonzero(after(x, history([1], 1), **second) > -np.inf).tolist() == [3]
    assert removed(x, history([1, 3], 1), **second) == {9}
    assert removed(x, history([1, 2], 2), **second) == {9}


def test_the_end_grows_more_probable():
    x = logits()
    x[4] = -np.inf
    tokens = [1, 2, 5, 5, 5]
    assert np.array_equal(
        after(x, history(tokens[:4]), exponential_decay_factor=1.5, exponential_decay_start=2), x
    )
    got = after(x, history(tokens), exponential_decay_factor=1.5, exponential_decay_start=1)
    assert got[0] == pytest.approx(x[0] + abs(x[0]) * (1.5**2 - 1), rel=1e-6) and got[4] == -np.inf
    assert np.array_equal(got[1:], x[1:])
    long = after(x, history([1] * 500, 1), exponential_decay_factor=50)
    assert np.isfinite(long[0]) and int(np.argmax(long)) == 0


def test_dynamic_temperature_by_its_definition():
    for seed in range(5):
        x = logits(seed)
        x[3] = -np.inf
        p = np.exp(x.astype(np.float64) - x.max())
        p = p[p > 0] / p.sum()
        share = -np.sum(p * np.log(p)) / math.log(len(p))
        for spread, exponent in ((0.3, 1.0), (0.8, 2.0), (2.0, 0.5)):
            t = max(0.0, 0.8 - spread) + (0.8 + spread - max(0.0, 0.8 - spread)) * share**exponent
            past = history([1, 2])
            got = after(x, past, temperature=0.8, dynatemp_range=spread, dynatemp_exponent=exponent)
            assert got == pytest.approx(x / np.float32(t), rel=1e-5)
    certain = np.array([0, 500, 0], np.float32)
    assert np.isfinite(after(certain, history([1]), temperature=0.5, dynatemp_range=1)[1])


def test_top_h_by_its_definition():
    for seed in range(20):
        x = logits(seed, 300)
        order = np.argsort(-x, kind="stable")[:100]
        p = np.exp(x[order].astype(np.float64))
        p /= p.sum()
        terms = np.cumsum(-p * np.log(p))
        for h in (0.1, 0.5, 0.9):
            count = max(1, int(np.count_nonzero(terms <= h * terms[-1])))
            got = np.flatnonzero(after(x, history([1]), temperature=1, top_h=h) > -np.inf)
            assert got.tolist() == np.sort(order[:count]).tolist()
        assert np.count_nonzero(after(x, history([1]), temperature=1, top_h=1.0) > -np.inf) == 100


def test_the_coin_of_xtc():
    """It falls as often as it should, is keyed by seed, sample and position, and is no word of the draw's noise."""
    x = np.zeros(4, np.float32)
    x[:2] = 3
    params = SamplingParams(temperature=1, xtc_probability=0.3, xtc_threshold=0.2)
    sampler = Sampler(params, 11)
    falls = [sampler.process(history([1] * n, 1), x)[0] == -np.inf for n in range(1, 4001)]
    assert abs(np.mean(falls) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
    coins = [uniform(11, 0, n, XTC_STREAM) < 0.3 for n in range(1, 4001)]
    assert coins == falls
    others = {uniform(s, i, n, XTC_STREAM) for s in (11, 12) for i in (0, 1) for n in (5, 6)}
    assert len(others) == 8
    word = int(philox(np.array([0, 5, 0, XTC_STREAM], np.uint32), (11, 0))[0])
    assert uniform(11, 0, 5, XTC_STREAM) == (word + 0.5) / 2**32


def mirostat_2(x, mu):
    p = np.exp(x.astype(np.float64) - x.max())
    p /= p.sum()
    keep = -np.log2(p) <= mu
    keep[np.argmax(p)] = True
    return keep, p


def test_mirostat_2_follows_its_recurrence():
    params = SamplingParams(temperature=1, mirostat=2, mirostat_tau=2.0, mirostat_eta=0.3, seed=1)
    sampler, mu, tokens = Sampler(params, 1), 4.0, [1, 2]
    for turn in range(60):
        x = logits(turn, 50)
        past = history(tokens)
        assert sampler.states(past)["mirostat"][0] == pytest.approx(mu, rel=1e-9)
        keep, p = mirostat_2(x, mu)
        assert np.array_equal(sampler.process(past, x) > -np.inf, keep)
        token = sampler.choose(past, x).token_id
        mu -= 0.3 * (-math.log2(p[token] / p[keep].sum()) - 2.0)
        tokens.append(token)


def test_mirostat_1_by_its_formula():
    for seed in range(30):
        x = (np.random.default_rng(seed).standard_normal(400) * (1 + seed % 4)).astype(np.float32)
        p = np.sort(np.exp(x.astype(np.float64) - x.max()))[::-1]
        p /= p.sum()
        i = np.arange(99)
        t, b = np.log((i + 2) / (i + 1)), np.log(p[:99] / p[1:100])
        s = np.sum(t * b) / np.sum(t * t)
        for tau in (0.5, 2.0, 3.5):
            k = ((s - 1) * 2 ** (2 * tau) / (1 - 400 ** -(s - 1))) ** (1 / s)
            if abs(k - round(k)) < 1e-6:
                continue
            got = after(x, history([1]), temperature=1, mirostat=1, mirostat_tau=tau)
            assert np.count_nonzero(got > -np.inf) == min(400, max(1, int(k)))
    for odd in (np.zeros(5, np.float32), np.array([1, -np.inf, -np.inf], np.float32), np.ones(1, np.float32)):
        assert np.max(after(odd, history([0]), temperature=1, mirostat=1)) > -np.inf


def test_mirostat_reaches_its_target():
    """Over a long text the mean surprise is near tau, from a model that is far more random."""
    for version in (1, 2):
        params = SamplingParams(temperature=1, mirostat=version, mirostat_tau=3.0, mirostat_eta=0.1)
        sampler, tokens, surprises = Sampler(params, 3), [1], []
        for turn in range(400):
            x = (np.random.default_rng(turn).standard_normal(2000) * 1.5).astype(np.float32)
            processed = sampler.process(history(tokens, 1), x)
            p = np.exp(processed.astype(np.float64) - processed.max())
            token = sampler.choose(history(tokens, 1), x).token_id
            surprises.append(-math.log2(p[token] / p.sum()))
            tokens.append(token)
        assert abs(np.mean(surprises[100:]) - 3.0) < 0.25


def test_adaptive_p_follows_its_recurrence():
    params = SamplingParams(temperature=1, adaptive_target=0.3, adaptive_decay=0.8)
    sampler, tokens = Sampler(params, 1), [1, 2]
    weighted, total = 0.3 / 0.2, 1 / 0.2
    for turn in range(50):
        x, past = logits(turn), history(tokens)
        p = np.exp(x.astype(np.float64) - x.max())
        p /= p.sum()
        aim = min(1.0, max(0.0, 0.6 - weighted / total))
        d = np.abs(p - aim) / 0.3
        assert sampler.process(past, x) == pytest.approx(
            (5 - 10 * d * d / (1 + d)).astype(np.float32), rel=1e-5
        )
        token = sampler.choose(past, x).token_id
        weighted, total = p[token] + 0.8 * weighted, 1 + 0.8 * total
        tokens.append(token)


@pytest.mark.parametrize(
    "params", [{"mirostat": 2, "mirostat_tau": 2.0}, {"mirostat": 1}, {"adaptive_target": 0.2}]
)
def test_feedback_survives_rewinds_drafts_and_neighbours(params):
    """Whatever was chosen in between, the choice at a position is that of the plain run."""
    chosen = SamplingParams(temperature=1, **params)
    rows = [logits(100 + i, 40) for i in range(40)]

    def plain(sample_index):
        sampler, tokens = Sampler(chosen, 9), [3]
        for x in rows:
            tokens.append(sampler.choose(history(tokens, 1, sample_index=sample_index), x).token_id)
        return tokens

    wanted = {i: plain(i) for i in (0, 1)}
    rng, sampler = np.random.default_rng(4), Sampler(chosen, 9)
    reached = {0: 0, 1: 0}
    for _ in range(400):
        sample = int(rng.integers(2))
        at = int(rng.integers(0, min(reached[sample] + 1, len(rows) - 1) + 1))
        at = min(at, reached[sample])
        truth = wanted[sample]
        if rng.random() < 0.2:  # a wrong draft is tried after this position and thrown away
            wrong = [*truth[: at + 1], (truth[at + 1] + 1) % 40]
            sampler.choose(history(truth[: at + 1], 1, sample_index=sample), rows[at])
            sampler.choose(history(wrong, 1, sample_index=sample), rows[at + 1 if at + 1 < len(rows) else at])
            reached[sample] = at
        past = history(truth[: at + 1], 1, sample_index=sample)
        assert sampler.choose(past, rows[at]).token_id == truth[at + 1]
        reached[sample] = min(at + 1, len(rows) - 1)
    assert wanted[0] != wanted[1]


def test_tokens_put_in_by_hand_leave_the_state():
    sampler = Sampler(SamplingParams(temperature=1, mirostat=2), 9)
    tokens = [3]
    for i in range(4):
        tokens.append(sampler.choose(history(tokens, 1), logits(i)).token_id)
    state = sampler.states(history(tokens, 1))
    assert sampler.states(history([*tokens, 5, 6], 1)) == state != sampler.states(history([3], 1))
    other = [3, (tokens[1] + 1) % VOCABULARY, *tokens[2:]]
    assert sampler.states(history(other, 1)) == sampler.states(history([3], 1))


def test_a_function_is_a_stage_and_its_output_is_used_exactly():
    x, seen = logits(), []

    def double(token_ids, given):
        seen.append((token_ids.tolist(), token_ids.dtype, given.dtype))
        given *= 2
        return given

    def only(token_ids, given):
        assert np.array_equal(given, x * 2)
        given[5:] = -np.inf
        return given

    before = x.copy()
    got = after(x, history([1, 2, 9]), logits_processors=[double, only])
    assert np.array_equal(got[:5], x[:5] * 2) and np.all(got[5:] == -np.inf) and np.array_equal(x, before)
    assert seen == [([1, 2, 9], np.int32, np.float32)]
    kept_array = np.zeros(VOCABULARY, np.float32)
    after(x, history([1]), logits_processors=[lambda ids, l: kept_array], temperature=0.5, top_k=1)
    assert not kept_array.any(), "what the function keeps is not written to"


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda ids, l: None, "got NoneType; return the logits"),
        (lambda ids, l: l.tolist(), "got list"),
        (lambda ids, l: l.astype(np.float64), r"expected float32 logits of shape \(30,\), got float64"),
        (lambda ids, l: l[:5], r"got float32 of shape \(5,\)"),
        (lambda ids, l: l * np.float32(np.nan), "the logit of token 0 is nan"),
        (
            lambda ids, l: l + np.float32(np.inf),
            r"the logit of token 0 is inf, expected a finite number or -inf",
        ),
        (lambda ids, l: ids.fill(3), "raised ValueError"),
        (lambda ids, l: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_is_wrong_is_named(function, match):
    with pytest.raises(LogitsFunctionError, match=match) as caught:
        after(logits(), history([1, 2, 3]), logits_processors=[np.negative and (lambda i, l: l), function])
    assert str(caught.value).startswith("logits_processors[1] (<lambda>) at position 3")
