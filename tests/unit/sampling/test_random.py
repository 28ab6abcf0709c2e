"""Keyed noise: known answers, native = NumPy bit for bit, and the draw's distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pellucid import _native
from pellucid.sampling import random as twin

# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, answer.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return np.array([int(w, 16) for w in text.split()], np.uint32)


def native_gumbel(seed, sample, position, ids, stream=0):
    out = np.empty(len(ids))
    _native.gumbel(seed % 2**64, sample, position, stream, ids, out)
    return out


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers(counter, key, answer):
    out = np.empty(4, np.uint32)
    _native.philox(words(counter), words(key), out)
    assert np.array_equal(out, words(answer))
    assert np.array_equal(twin.philox(words(counter), tuple(words(key).tolist())), words(answer))


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF])
@pytest.mark.parametrize(("sample", "position", "stream"), [(0, 0, 0), (3, 17, 0), (2**32 - 1, 2**32 - 1, 4)])
def test_noise_is_its_twin_bit_for_bit(seed, sample, position, stream):
    ids = np.concatenate([np.arange(1000), [262143, 2**31 - 1]]).astype(np.int32)
    ours, theirs = (
        native_gumbel(seed, sample, position, ids, stream),
        twin.gumbel(seed, sample, position, ids, stream),
    )
    assert np.array_equal(ours.view(np.uint64), theirs.view(np.uint64))


def test_noise_is_a_function_of_each_part_of_the_key():
    ids = np.arange(64, dtype=np.int32)
    keys = [(1, 0, 0), (2, 0, 0), (1 + 2**32, 0, 0), (1, 1, 0), (1, 0, 1)]
    drawn = {tuple(native_gumbel(*key, ids)) for key in keys} | {tuple(native_gumbel(1, 0, 0, ids, 1))}
    assert len(drawn) == len(keys) + 1
    assert np.array_equal(native_gumbel(1, 0, 0, ids)[::-1], native_gumbel(1, 0, 0, ids[::-1].copy()))


def test_log_is_accurate():
    """Within 2 ulp of libm's (which is within 1 of the truth)."""
    rng = np.random.default_rng(0)
    tiny = 2.0 ** -np.arange(1.0, 34)
    x = np.concatenate(
        [rng.random(10000), rng.random(1000) * 40, np.exp(rng.uniform(-600, 600, 2000)), tiny, 1 - tiny]
    )
    exact = np.array([math.log(v) for v in x])
    assert np.max(np.abs(twin.log(x) - exact) / np.spacing(np.abs(exact))) <= 2


def test_bounds_of_the_noise_hold_at_the_ends():
    """The pruning of gumbel_argmax stands on G <= 22.9 and on G < (33 - bit width of ~r) log 2 + 1e-9."""
    r = np.unique(np.concatenate([[2**32 - 2**k + d for k in range(33) for d in (-1, 0, 1)], [0, 1]]))
    r = r[(r >= 0) & (r < 2**32)]
    g = -twin.log(-twin.log((r + 0.5) * 2.0**-32))
    width = np.array([int(2**32 - 1 - v).bit_length() for v in r])
    assert g.max() < 22.9 and g.min() > -3.2
    assert np.all(g < (33 - width) * math.log(2) + 1e-9)


@pytest.mark.parametrize("size", [1, 3, 63, 64, 65, 1000, 50257])
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 30.0])
def test_pruned_draw_is_the_full_one(size, spread):
    rng = np.random.default_rng(size)
    for position in range(30 if size < 2000 else 6):
        x = (rng.standard_normal(size) * spread).astype(np.float32)
        if position % 3 == 1:
            x[rng.random(size) < 0.7] = -np.inf
        if position % 3 == 2:
            x = np.round(x)
        args = (x, 99 + position, 2, position)
        assert _native.gumbel_argmax(*args, 0) == twin.gumbel_argmax(*args)


def test_ties_of_the_draw_go_to_the_lowest_id():
    """Adding 1e20 swallows all of the noise: every score is equal."""
    x = np.full(300, 1e20, np.float32)
    x[:5] = -np.inf
    assert _native.gumbel_argmax(x, 1, 0, 0, 0) == 5 == twin.gumbel_argmax(x, 1, 0, 0)


def test_nothing_to_choose_and_no_numbers():
    nothing = np.full(100, -np.inf, np.float32)
    assert _native.gumbel_argmax(nothing, 1, 0, 0, 0) == -1 == _native.argmax(nothing)
    assert _native.log_normalizer(nothing) == -np.inf
    for wrong, name in ((np.nan, "NaN"), (np.inf, r"\+inf")):
        for size, at in ((100, 99), (100, 3), (64, 63)):
            x = np.zeros(size, np.float32)
            x[at] = wrong
            calls = [
                lambda x: _native.argmax(x),
                lambda x: _native.gumbel_argmax(x, 1, 0, 0, 0),
                lambda x: _native.log_normalizer(x),
                lambda x: _native.keep_top_k(x, 3),
                lambda x: _native.keep_top_p(x, 0.5),
                lambda x: _native.keep_min_p(x, 0.5),
                lambda x: _native.top_k(x, np.empty(3, np.int32)),
            ]
            for call in calls:
                with pytest.raises(ValueError, match=f"token {at} is {name}"):
                    call(x)


def chi_square(x, num_draws, draw):
    """The statistic of draws against softmax(x) in float64, and a bound that 1 sound run in 10,000 exceeds."""
    p = np.exp(x.astype(np.float64) - x.max())
    p /= p.sum()
    counts = np.bincount([draw(i) for i in range(num_draws)], minlength=len(x))
    assert np.all(counts[p == 0] == 0)
    counts, p = counts[p > 0], p[p > 0]
    order = np.argsort(p)
    expected, observed = (p * num_draws)[order], counts[order]
    group = np.cumsum(expected) // 10  # rare tokens together, at least about 10 draws expected in each group
    expected = np.array([expected[group == g].sum() for g in np.unique(group)])
    observed = np.array([observed[group == g].sum() for g in np.unique(group)])
    degrees = len(expected) - 1
    bound = degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3  # Wilson-Hilferty
    return np.sum((observed - expected) ** 2 / expected), bound


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("vary", ["position", "seed", "sample"])
def test_draws_follow_the_softmax(spread, vary):
    x = (np.random.default_rng(1).standard_normal(200) * spread).astype(np.float32)
    x[7] = -np.inf
    keys = {"position": lambda i: (5, 0, i), "seed": lambda i: (i, 0, 5), "sample": lambda i: (5, i, 9)}
    statistic, bound = chi_square(x, 40_000, lambda i: _native.gumbel_argmax(x, *keys[vary](i), 0))
    assert statistic < bound


def test_neighbouring_keys_are_independent():
    """Pairs of draws at successive positions, and of successive seeds: uniform over the 8 x 8 table."""
    x = np.zeros(8, np.float32)
    pair = np.zeros(64, np.float32)
    for key in (lambda i, j: (3, 0, 2 * i + j), lambda i, j: (2 * i + j, 0, 3)):

        def draw(i, key=key):
            first, second = (_native.gumbel_argmax(x, *key(i, j), 0) for j in (0, 1))
            return 8 * first + second

        statistic, bound = chi_square(pair, 30_000, draw)
        assert statistic < bound
