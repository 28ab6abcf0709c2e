"""Which tokens would complete an n-gram that occurs, and whether a sequence of tokens has just begun."""

from __future__ import annotations

import numpy as np

from pellucid.types import Int32


def followers(text: Int32, history: Int32, size: int) -> Int32:
    """The ids that stand in `text` after the last size - 1 ids of `history`; int32, ascending, unique.

    One comparison of whole arrays for each of the size - 1 ids: linear in the text.
    """
    count = len(text) - size + 1  # windows of `size` tokens
    if count <= 0 or len(history) < size - 1:
        return np.empty(0, np.int32)
    last = history[len(history) - (size - 1) :]
    matches = np.ones(count, bool)
    for i in range(size - 2, -1, -1):
        matches &= text[i : i + count] == last[i]
        if not matches.any():
            break
    return np.unique(text[size - 1 :][matches])


def ends_with(history: Int32, ids: tuple[int, ...]) -> bool:
    """Whether the last tokens of the history are `ids`; always, if there are none."""
    n = len(ids)
    return n == 0 or (len(history) >= n and history[len(history) - n :].tolist() == list(ids))
