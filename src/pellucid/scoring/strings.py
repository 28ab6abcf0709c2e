"""The probability that an output starts with given bytes, summed over tokenisations.

The cover of Vieira et al. (2024, arXiv:2412.03719): token sequences whose bytes begin with the string, and would
not without their last token. They exclude each other, so their probabilities add. Control tokens and tokens
without bytes spell no text: outputs with one of them before the string is complete are not counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from math import fsum
from typing import TYPE_CHECKING

import numpy as np

from pellucid.scoring.results import StringProbability

if TYPE_CHECKING:
    from pellucid.engine.held import Held
    from pellucid.serving.driver import Driver
    from pellucid.text.tokenizer import Tokenizer
    from pellucid.types import Float32

TOGETHER = 16  # paths that share a pass


class ByteTokens:
    """The tokens that spell bytes, sorted by them."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int) -> None:
        size = min(tokenizer.vocabulary_size, vocabulary_size)
        spelled = ((tokenizer.token_bytes(i), i) for i in range(size) if i not in tokenizer.special_ids)
        pairs = sorted(pair for pair in spelled if pair[0])
        self._bytes = [data for data, _ in pairs]
        self._ids = np.array([token for _, token in pairs], np.int64)

    def beginning_with(self, data: bytes) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        start = stop = bisect_left(self._bytes, data)
        while stop < len(self._bytes) and self._bytes[stop].startswith(data):
            stop += 1
        return self._ids[start:stop]

    def within(self, data: bytes) -> list[tuple[int, int]]:
        """(id, length) of the tokens that are a beginning of data, shorter than it."""
        found = []
        for length in range(1, len(data)):
            at = bisect_left(self._bytes, data[:length])
            while at < len(self._bytes) and self._bytes[at] == data[:length]:
                found.append((int(self._ids[at]), length))
                at += 1
        return found


def string_probability(
    driver: Driver, tokens: ByteTokens, context: Sequence[int], data: bytes, max_nodes: int
) -> StringProbability:
    """Paths in the order of their probability, until none is left or max_nodes were looked at."""
    order = count()  # equal probabilities: first come
    frontier: list[tuple[float, int, Held, int]] = []  # (-probability, order, sequence, bytes matched)
    found: list[float] = []
    num_nodes = 0
    try:
        heappush(frontier, (-1.0, next(order), driver.hold(context), 0))
        while frontier and num_nodes < max_nodes:
            number = min(TOGETHER, max_nodes - num_nodes, len(frontier))
            taken = [heappop(frontier) for _ in range(number)]
            try:
                rows = driver.evaluate([held for _, _, held, _ in taken])
                for (negative, _, held, matched), row in zip(taken, rows, strict=True):
                    rest, chances = data[matched:], -negative * _softmax(row[-1])
                    found.append(fsum(chances[tokens.beginning_with(rest)]))
                    for token, length in tokens.within(rest):
                        child = held.fork()
                        child.append([token])
                        heappush(frontier, (-float(chances[token]), next(order), child, matched + length))
            finally:
                for _, _, held, _ in taken:
                    held.close()
            num_nodes += number
        lower, left = fsum(found), fsum(-negative for negative, *_ in frontier)
        return StringProbability(min(lower, 1.0), min(lower + left, 1.0), num_nodes, len(frontier))
    finally:
        for _, _, held, _ in frontier:
            held.close()


def _softmax(row: Float32) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    weights = np.exp(row.astype(np.float64) - float(row.max()))
    return weights / weights.sum()  # type: ignore[no-any-return]
