"""Keyed noise of the nodes of a token tree: a function of the seed and of the tokens that lead to a node."""

from __future__ import annotations

import numpy as np

from pellucid import _native
from pellucid.sampling.random import STOCHASTIC_BEAM_STREAM, Float64, philox

_NOISE, _KEY = 0, 1  # what a counter's third word says: noise of a node's children, or the key of a child
_ROOT = 2**32 - 1  # the position of the root's own noise


def root_noise(seed: int) -> float:
    """Standard Gumbel noise of the root."""
    out = np.empty(1, np.float64)
    _native.gumbel(seed % 2**64, _NOISE, _ROOT, STOCHASTIC_BEAM_STREAM, np.zeros(1, np.int32), out)
    return float(out[0])


def children_noise(key: int, depth: int, count: int) -> Float64:
    """Standard Gumbel noise of the children 0 to count - 1 of a node of this key (the root's: the seed) and depth."""
    out = np.empty(count, np.float64)
    ids = np.arange(count, dtype=np.int32)
    _native.gumbel(key % 2**64, _NOISE, depth, STOCHASTIC_BEAM_STREAM, ids, out)
    return out


def child_key(key: int, depth: int, token: int) -> int:
    """The key of a node's child: 64 bits."""
    key %= 2**64
    counter = np.array([token, depth, _KEY, STOCHASTIC_BEAM_STREAM], np.uint32)
    words = philox(counter, (key & 0xFFFFFFFF, key >> 32))
    return int(words[0]) | int(words[1]) << 32
