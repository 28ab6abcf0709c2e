"""Keyed noise, in NumPy: the readable twin of native/sampling/noise.cc, and the same bits.

Nothing here has a state. A draw is argmax(logits + G), G standard Gumbel noise, which chooses token i with
probability softmax(logits)[i] (Gumbel 1954; Maddison et al. 2014). G is a function of (seed, sample index,
absolute position, token id) by the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011),
so a seed gives the same text whatever the batch, and a step can be drawn again at any time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pellucid.types import Float32, Int32

Float64 = NDArray[np.float64]
UInt32 = NDArray[np.uint32]

SAMPLE_STREAM = 0  # the fourth word of the counter: other uses of noise take other numbers
XTC_STREAM = 2
STOCHASTIC_BEAM_STREAM = 3

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOG2_HIGH = float.fromhex("0x1.62e42feep-1")
_LOG2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_SQRT2 = float.fromhex("0x1.6a09e667f3bcdp+0")


def philox(counter: UInt32, key: tuple[int, int]) -> UInt32:
    """Philox4x32-10: counters uint32 [..., 4], key two words -> uint32 [..., 4]."""
    a, b, c, d = (counter[..., i].astype(np.uint64) for i in range(4))
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for turn in range(10):
        k0, k1 = (np.uint64((key[i] + turn * _WEYL[i]) & 0xFFFFFFFF) for i in range(2))
        p, q = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a, b, c, d = (q >> half) ^ b ^ k0, q & low, (p >> half) ^ d ^ k1, p & low
    return np.stack([a, b, c, d], axis=-1).astype(np.uint32)


def log(x: Float64) -> Float64:
    """log of positive normal float64, from +, -, *, / alone (native/sampling/arithmetic.h, operation by
    operation)."""
    m, e = np.frexp(x)  # m in [0.5, 1)
    m, e = m * 2.0, e.astype(np.int64) - 1
    high = m >= _SQRT2
    m, e = np.where(high, m * 0.5, m), np.where(high, e + 1, e)
    t = (m - 1.0) / (m + 1.0)
    t2 = t * t
    s = np.full_like(t, 1.0 / 21.0)
    for n in range(19, 1, -2):
        s = s * t2 + 1.0 / n
    k = e.astype(np.float64)
    log_m = 2.0 * t + (2.0 * t) * (t2 * s)
    result: Float64 = k * _LOG2_HIGH + (log_m + k * _LOG2_LOW)
    return result


def uniform(seed: int, sample_index: int, position: int, stream: int) -> float:
    """One number in (0, 1) for a position: a multiple of 2^-33. The seed counts modulo 2^64."""
    seed %= 2**64
    counter = np.array([0, position, sample_index, stream], np.uint32)
    word = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))[0]
    return (float(word) + 0.5) * 2.0**-32


def gumbel(seed: int, sample_index: int, position: int, ids: Int32, stream: int = SAMPLE_STREAM) -> Float64:
    """Standard Gumbel noise of each token id: float64 [len(ids)]. The seed counts modulo 2^64."""
    tokens = np.asarray(ids).astype(np.uint32)
    counter = np.empty((len(tokens), 4), np.uint32)
    counter[:, 0], counter[:, 1], counter[:, 2], counter[:, 3] = tokens >> 2, position, sample_index, stream
    seed %= 2**64
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    r = words[np.arange(len(tokens)), tokens & 3]
    u = (r.astype(np.float64) + 0.5) * 2.0**-32
    return -log(-log(u))


def gumbel_argmax(
    logits: Float32, seed: int, sample_index: int, position: int, stream: int = SAMPLE_STREAM
) -> int:
    """One draw of softmax(logits), float32 [vocabulary]: the largest logit + noise, the lowest id of equals.

    -1 if all logits are -inf.
    """
    ids = np.arange(len(logits), dtype=np.int32)
    scores = logits.astype(np.float64) + gumbel(seed, sample_index, position, ids, stream)
    best = int(np.argmax(scores))
    return best if scores[best] > -np.inf else -1
