"""Native selection and normalisation against plain NumPy that sorts everything."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pellucid import _native
from pellucid.sampling import random as twin

SIZES = [1, 2, 63, 64, 65, 128, 1000, 4097]


def cases(size):
    """Logits of every awkward kind: ties, -inf, both zeros, one hot, flat, wide, subnormal."""
    rng = np.random.default_rng(size)
    normal = rng.standard_normal(size) * 4
    holes = np.where(rng.random(size) < 0.6, -np.inf, normal)
    one_hot = np.full(size, -np.inf)
    one_hot[size // 2] = -3.0
    yield from (
        normal,
        np.round(normal),
        np.zeros(size),
        np.where(rng.random(size) < 0.5, 0.0, -0.0),
        holes,
        np.round(holes),
        one_hot,
        np.full(size, -np.inf),
        rng.standard_normal(size) * 300,
        rng.standard_normal(size) * 1e-42,
        np.float32(np.finfo(np.float32).min) * rng.random(size),
    )


def logits(size):
    return [x.astype(np.float32) for x in cases(size)]


def ordered(x):
    """All ids, by logit descending, then id ascending."""
    return np.lexsort((np.arange(len(x)), -x.astype(np.float64)))


def exp(x):
    """exp_negative of native/sampling/arithmetic.h, operation by operation."""
    shifted = x * float.fromhex("0x1.71547652b82fep+0") + 1.5 * 2.0**52
    k = shifted - 1.5 * 2.0**52
    r = (x - k * float.fromhex("0x1.62e42feep-1")) - k * float.fromhex("0x1.a39ef35793c76p-33")
    s = np.full_like(r, 1.0 / math.factorial(13))
    for n in range(12, -1, -1):
        s = s * r + 1.0 / math.factorial(n)
    return np.ldexp(s, k.astype(np.int64))


def log_normalizer(x):
    top = float(x.max())
    if top == -np.inf:
        return -np.inf
    padded = np.full(-(-len(x) // 8) * 8, -np.inf)
    padded[: len(x)] = x
    distance = padded - top
    terms = np.where(distance > -50, exp(np.maximum(distance, -50)), 0.0)
    lanes = np.cumsum(terms.reshape(-1, 8), axis=0)[-1]  # one after the other
    pairs = [lanes[i] + lanes[i + 1] for i in (0, 2, 4, 6)]
    return top + float(twin.log(np.array([(pairs[0] + pairs[1]) + (pairs[2] + pairs[3])]))[0])


def test_exp_is_accurate():
    x = -np.random.default_rng(0).random(10000) * 50
    exact = np.array([math.exp(v) for v in x])
    assert np.max(np.abs(exp(x) - exact) / np.spacing(exact)) <= 2


@pytest.mark.parametrize("size", [*SIZES, 49152])
def test_log_normalizer(size):
    for x in logits(size):
        ours = _native.log_normalizer(x)
        assert ours == log_normalizer(x)  # bit for bit
        finite = x[x > -np.inf].astype(np.float64)
        if len(finite):
            top = float(x.max())
            exact = top + math.log(math.fsum(np.exp(finite - top)))
            assert ours == pytest.approx(exact, rel=1e-14, abs=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_argmax(size):
    for x in logits(size):
        assert _native.argmax(x) == (int(np.argmax(x)) if x.max() > -np.inf else -1)


@pytest.mark.parametrize("size", SIZES)
def test_top_k(size):
    for x in logits(size):
        for k in {0, 1, 2, 40, size // 3, size - 1, size}:
            if 0 <= k <= size:
                ids = np.empty(k, np.int32)
                _native.top_k(x, ids)
                assert np.array_equal(ids, ordered(x)[:k])


def kept(x, native, *args):
    out = x.copy()
    native(out, *args)
    mask = out > -np.inf
    assert np.array_equal(out[mask], x[mask])
    return np.flatnonzero(mask)


def finite(x, ids):
    return np.sort(ids[x[ids] > -np.inf])


@pytest.mark.parametrize("size", SIZES)
def test_keep_top_k(size):
    for x in logits(size):
        for k in {1, 2, 40, size // 3 + 1, size, size + 5}:
            assert np.array_equal(kept(x, _native.keep_top_k, k), finite(x, ordered(x)[:k]))


def nucleus(x, p):
    """By a full sort, with the same weights: whole units of 2^-44 of the largest, summed exactly."""
    if x.max() == -np.inf or p >= 1.0:
        return ordered(x)
    distance = x.astype(np.float64) - float(x.max())
    weights = np.rint(np.where(distance > -31.2, exp(np.maximum(distance, -31.2)) * 2.0**44, 0)).astype(
        np.int64
    )
    order = ordered(x)
    reached = np.cumsum(weights[order]).astype(np.float64)
    return order[: int(np.argmax(reached >= p * float(weights.sum()))) + 1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9, 0.999999, 1.0])
def test_keep_top_p(size, p):
    for x in logits(size):
        ids = kept(x, _native.keep_top_p, p)
        assert np.array_equal(ids, finite(x, nucleus(x, p)))
        if len(ids) and p < 1:  # and by the definition: p is reached, and would not be with one token less
            q = np.exp(x.astype(np.float64) - x.max())
            q /= q.sum()
            assert q[ids].sum() >= p - 1e-9
            assert q[ids].sum() - q[ids].min() < p + 1e-9


def weights_of(x):
    """int64 [vocabulary], the units that `nucleus` adds up."""
    distance = x.astype(np.float64) - float(x.max())
    return np.rint(np.where(distance > -31.2, exp(np.maximum(distance, -31.2)) * 2.0**44, 0)).astype(np.int64)


def typical(x, p):
    """By a full sort, with the same weights and distances."""
    normalizer, nats = _native.entropy(x)
    with np.errstate(invalid="ignore"):
        distance = np.abs((normalizer - x.astype(np.float64)) - nats)
    weights = weights_of(x)
    order = np.lexsort((np.arange(len(x)), distance))
    order = order[weights[order] > 0]
    reached = np.cumsum(weights[order]).astype(np.float64)
    edge = order[int(np.argmax(reached >= p * float(weights.sum())))]
    return np.flatnonzero(
        (distance < distance[edge]) | ((distance == distance[edge]) & (np.arange(len(x)) <= edge))
    )


def hard(x, order, rng):
    """Values of p at which one token more or less is a matter of the last bit, and others."""
    reached = np.cumsum(weights_of(x)[order]).astype(np.float64)
    shares = reached[rng.integers(0, len(order), 8)] / reached[-1]
    near = [np.nextafter(share, target) for share in shares for target in (0.0, share, 2.0)]
    return [float(p) for p in (*near, *rng.random(4), 0.9, 0.95, 0.99) if 0 < p < 1]


@pytest.mark.parametrize("size", [65, 1000, 50_000])
@pytest.mark.parametrize("spread", [0.3, 2.0, 4.0, 12.0])
def test_cuts_by_mass_at_the_edge_of_a_token(size, spread):
    """The mass far from the cut is only bounded; where the bounds leave the cut open, it is added up exactly."""
    rng = np.random.default_rng(size)
    for x in (rng.standard_normal(size) * spread, np.round(rng.standard_normal(size) * spread, 1) + 900):
        x = x.astype(np.float32)
        for p in hard(x, ordered(x), rng):
            assert np.array_equal(kept(x, _native.keep_top_p, p), finite(x, nucleus(x, p)))
        normalizer, nats = _native.entropy(x)
        by_distance = np.lexsort((np.arange(size), np.abs((normalizer - x.astype(np.float64)) - nats)))
        for p in hard(x, by_distance, rng):
            assert np.array_equal(kept(x, _native.keep_typical, p), typical(x, p))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p", [1e-300, 0.02, 0.5, 1.0])
def test_keep_min_p(size, p):
    for x in logits(size):
        if x.max() == -np.inf:
            assert len(kept(x, _native.keep_min_p, p)) == 0
            continue
        least = float(twin.log(np.array([p]))[0])
        expected = np.flatnonzero((x.astype(np.float64) - float(x.max()) >= least) & (x > -np.inf))
        assert np.array_equal(kept(x, _native.keep_min_p, p), expected)
        assert len(expected) > 0


def test_arguments_are_checked():
    x = np.zeros(10, np.float32)
    for call in (
        lambda: _native.keep_top_k(x, 0),
        lambda: _native.keep_top_p(x, 0.0),
        lambda: _native.keep_top_p(x, float("nan")),
        lambda: _native.keep_min_p(x, 1.5),
        lambda: _native.top_k(x, np.empty(11, np.int32)),
        lambda: _native.keep_top_p(np.zeros(2**19 + 1, np.float32), 0.5),
    ):
        with pytest.raises(ValueError):
            call()
    for wrong in (x.astype(np.float64), x[::2], x.reshape(2, 5), [0.0]):
        with pytest.raises(TypeError):
            _native.argmax(wrong)
