"""Drafts checked: each is compared with the token that is chosen from its own row, with its own noise.

A choice is a function of (logits, history, parameters, key), so row i, computed after drafts that turned out right,
gives the very token that a pass of its own would have given: greedy or drawn, penalised or constrained. (For a single
draft, choosing with the target's own noise accepts with probability p(draft): as often as the rejection rule of
Leviathan et al. 2023, arXiv 2211.17192, can.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pellucid.sampling.base import History
from pellucid.sampling.sampler import Choice
from pellucid.types import Float32, Int32, Logits


class Ahead:
    """A `History` with further tokens after it: what it would be if they were chosen."""

    __slots__ = (
        "companion_logits",
        "num_dropped",
        "num_generated",
        "num_prompt",
        "sample_index",
        "stop_ids",
        "token_ids",
    )

    def __init__(self, history: History, ids: list[int]) -> None:
        self.token_ids: Int32 = np.append(history.token_ids, np.array(ids, np.int32))
        self.num_prompt = history.num_prompt
        self.num_generated = history.num_generated + len(ids)
        self.num_dropped = history.num_dropped
        self.sample_index = history.sample_index
        self.stop_ids: Int32 = history.stop_ids
        self.companion_logits: Float32 | None = None  # nothing is drafted where there is a companion


Choose = Callable[[History, Any], Choice]
"""From one row of `Logits`: `Sampler.choose` or `choose_from_bounds`."""


def verify(choose: Choose, history: History, drafts: list[int], rows: Logits) -> list[Choice]:
    """rows: 1 + len(drafts), row i after history + drafts[:i]; choose: from one of them, whichever they are.

    The choices up to the first that is not its draft, that one included; nothing is chosen after a token that ends the
    output."""
    choices = [choose(history, rows[0])]
    for i, draft in enumerate(drafts):
        if choices[-1].token_id != draft or draft in history.stop_ids:
            break
        choices.append(choose(Ahead(history, drafts[: i + 1]), rows[i + 1]))
    return choices
