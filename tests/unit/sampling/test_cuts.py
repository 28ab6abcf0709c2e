"""Cuts by probability, entropy and spread, and penalties for repeats, against definitions in plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pellucid import _native

SIZES = [1, 2, 63, 64, 65, 1000, 4097]


def logits(size):
    """Ties, holes, one hot, flat, wide; float32."""
    rng = np.random.default_rng(size)
    normal = rng.standard_normal(size) * 3
    one_hot = np.full(size, -np.inf)
    one_hot[size // 2] = -3.0
    holes = np.where(rng.random(size) < 0.6, -np.inf, normal)
    holes[0] = 0.0
    yield from (
        x.astype(np.float32)
        for x in (normal, np.round(normal), np.zeros(size), holes, one_hot, normal * 100, normal * 0.1)
    )


def softmax(x):
    e = np.exp(x.astype(np.float64) - float(x.max()))
    return e / math.fsum(e)


def entropy(p):
    p = p[p > 0]
    return -math.fsum(p * np.log(p))


def kept(x, native, *args):
    out = x.copy()
    native(out, *args)
    mask = out > -np.inf
    assert np.array_equal(out[mask], x[mask]), "a cut moves no logit that it keeps"
    return np.flatnonzero(mask)


def ranked(x):
    """The ids that are not excluded, in order."""
    order = np.lexsort((np.arange(len(x)), -x.astype(np.float64)))
    return order[x[order] > -np.inf]


def agree(x, got, wanted, values, edge):
    """Equal sets, but for tokens whose value is within rounding of the edge."""
    for i in np.setxor1d(got, wanted):
        assert values[i] == pytest.approx(edge, rel=1e-12, abs=1e-14), i
    assert len(got) > 0


@pytest.mark.parametrize("size", SIZES)
def test_entropy_and_probabilities(size):
    for x in logits(size):
        p = softmax(x)
        out = np.empty(size)
        _native.probabilities(x, out)
        assert out == pytest.approx(p, rel=1e-12, abs=1e-300)
        normalizer, nats = _native.entropy(x)
        assert normalizer == _native.log_normalizer(x)
        assert nats == pytest.approx(entropy(p), rel=1e-12, abs=1e-14)
    nothing = np.full(size, -np.inf, np.float32)
    _native.probabilities(nothing, out)
    assert not out.any() and _native.entropy(nothing) == (-np.inf, 0.0)


def threshold(x, p, edge, min_keep, all_ties):
    order = ranked(x)
    wanted = set(np.flatnonzero(p >= edge).tolist()) | set(order[:min_keep].tolist())
    least = min(x[i] for i in wanted)
    return [i for i in order if i in wanted or (all_ties and x[i] == least and least in x[order[:min_keep]])]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("min_keep", [1, 3, 5000])
@pytest.mark.parametrize("all_ties", [False, True])
def test_epsilon_and_eta(size, min_keep, all_ties):
    for x in logits(size):
        p = softmax(x)
        for e in (1e-6, 3e-4, 0.05, 0.9, 1.0):
            got = kept(x, _native.keep_epsilon, e, min_keep, all_ties)
            agree(x, got, np.sort(threshold(x, p, e, min_keep, all_ties)), p, e)
            eta = min(e, math.sqrt(e) * math.exp(-entropy(p)))
            got = kept(x, _native.keep_eta, e, min_keep, all_ties)
            agree(x, got, np.sort(threshold(x, p, eta, min_keep, all_ties)), p, eta)


@pytest.mark.parametrize("size", SIZES)
def test_surprise(size):
    for x in logits(size):
        p = softmax(x)
        for bits in (-1.0, 0.5, 3.3, 12.0):
            wanted = np.sort(threshold(x, p, 2.0**-bits, 1, False))
            agree(x, kept(x, _native.keep_surprise, bits), wanted, p, 2.0**-bits)


@pytest.mark.parametrize("size", SIZES)
def test_top_n_sigma(size):
    for x in logits(size):
        finite = x[x > -np.inf].astype(np.float64)
        for n in (0.3, 1.0, 2.5):
            edge = finite.max() - n * finite.std()
            wanted = np.flatnonzero(x >= edge)
            agree(x, kept(x, _native.keep_top_n_sigma, n), wanted, x.astype(np.float64), edge)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("min_keep", [1, 4])
def test_typical(size, min_keep):
    """Both tie rules, by sorting everything."""
    for x in logits(size):
        p = softmax(x)
        finite = ranked(x)
        surprise = _native.log_normalizer(x) - x.astype(np.float64)
        distance = np.abs(surprise - _native.entropy(x)[1])
        order = finite[np.lexsort((finite, distance[finite]))]
        for mass in (0.05, 0.3, 0.9, 0.999):
            count = max(int(np.count_nonzero(np.cumsum(p[order]) < mass - 1e-12)) + 1, min_keep)
            wanted = order[:count]
            got = kept(x, _native.keep_typical, mass, min_keep)
            assert abs(len(got) - len(wanted)) <= 1 and set(got) <= set(order[: count + 1])
            if len(got) == len(wanted):
                assert set(got) == set(wanted)
            ties = kept(x, _native.keep_typical, mass, min_keep, True)
            assert set(ties) == set(order[distance[order] <= distance[got].max()])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("min_keep", [1, 3, 63])
def test_exclude_top(size, min_keep):
    for x in logits(size):
        p = softmax(x)
        for t in (0.01, 0.1, 0.3, 0.5):
            order = ranked(x)
            above = [i for i in order if p[i] >= t]
            wanted = order[len(above) - 1 :] if len(above) > 1 else order
            wanted = wanted if len(wanted) >= min_keep else order
            assert np.array_equal(kept(x, _native.exclude_top, t, min_keep), np.sort(wanted))


@pytest.mark.parametrize("size", SIZES)
def test_aim_at_probability(size):
    for x in logits(size):
        p = softmax(x)
        for target in (0.0, 0.3, 1.0):
            out = x.copy()
            _native.aim_at_probability(out, target)
            d = np.abs(p - target) / 0.3
            wanted = np.where(x > -np.inf, 5 - 10 * d * d / (1 + d), -np.inf)
            assert out == pytest.approx(wanted.astype(np.float32), rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_min_keep_and_ties_of_the_older_cuts(size):
    for x in logits(size):
        order = ranked(x)
        for k in (1, 3, 40):
            for cut, arg in ((_native.keep_top_p, 0.3), (_native.keep_min_p, 0.5)):
                first = kept(x, cut, arg)
                wanted = first if len(first) >= k else np.sort(order[:k])
                assert np.array_equal(kept(x, cut, arg, k), wanted)
            if k < size:
                edge = x[order[: min(k, len(order))]].min()
                wanted = np.flatnonzero((x >= edge) & (x > -np.inf))
                assert np.array_equal(kept(x, _native.keep_top_k, k, True), wanted)


def brute_matches(ids, longest):
    out = []
    for i in range(len(ids) - 1):
        n = 0
        while n < longest and n <= i and ids[i - n] == ids[len(ids) - 1 - n]:
            n += 1
        out.append(n)
    return out


def test_suffix_matches_equal_brute_force():
    rng = np.random.default_rng(0)
    for size in [1, 2, 3, 10, 60]:
        for symbols in (1, 2, 3, 9):
            for longest in (0, 1, 4, 1000):
                ids = rng.integers(0, symbols, size).astype(np.int32)
                lengths = np.full(size, -7, np.int32)
                _native.suffix_matches(ids, longest, lengths)
                assert lengths[:-1].tolist() == brute_matches(ids.tolist(), longest)


def test_suffix_matches_take_linear_time():
    """Comparisons cannot be counted from here; a hundred thousand equal ids would take hours otherwise."""
    ids = np.zeros(100_000, np.int32)
    lengths = np.empty_like(ids)
    _native.suffix_matches(ids, 10**9, lengths)
    assert np.array_equal(lengths[:-1], np.arange(1, 100_000))


def test_penalize_equals_the_definition():
    rng = np.random.default_rng(1)
    for trial in range(50):
        x = (rng.standard_normal(40) * 3).astype(np.float32)
        ids = rng.integers(0, 40, trial).astype(np.int32)
        start = int(rng.integers(0, trial + 1))
        r, p, f = (np.float32(v) for v in (1.3, 0.5, -0.25))
        wanted = x.copy()
        for i in set(ids.tolist()):
            wanted[i] = wanted[i] / r if wanted[i] > 0 else wanted[i] * r
            count = int(np.count_nonzero(ids[start:] == i))
            if count:
                wanted[i] -= f * np.float32(count) + p
        for _ in range(2):  # the marks of the first call are gone
            got = x.copy()
            _native.penalize(got, ids, start, float(r), float(p), float(f))
            assert np.array_equal(got, wanted)


def test_exp_and_log():
    for v in (-600.0, -1.0, 0.0, 1e-9, 2.5, 600.0):
        assert _native.exp(v) == pytest.approx(math.exp(v), rel=1e-14)
    for v in (1e-200, 0.5, 1.0, 49152.0):
        assert _native.log(v) == pytest.approx(math.log(v), rel=1e-14, abs=1e-15)
    for call in (lambda: _native.exp(1e4), lambda: _native.log(0.0), lambda: _native.log(math.nan)):
        with pytest.raises(ValueError):
            call()
