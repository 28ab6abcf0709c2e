"""Which earlier tokens a choice depended on: by running the text again without each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import UsageError
from pellucid.sampling.distribution import Distribution
from pellucid.types import Float32, Int32

AT_ONCE = 32  # variants that are computed together


@dataclass(frozen=True)
class Dependence:
    """values: float64 [tokens]; by leave-one-out the log-probability (nats) that token_id loses where this token is
    left out, below 0: gains; by attention the rollout's share. logprob: with all tokens there (None: not computed).
    token_id: None: of no token in particular."""

    token_ids: Int32
    token_id: int | None
    logprob: float | None
    method: str
    values: NDArray[np.float64]

    def __repr__(self) -> str:
        what = "the last position" if self.token_id is None else f"token {self.token_id}"
        return f"Dependence({self.method}, of {what} on {len(self.token_ids)} tokens)"

    def top(self, k: int = 5) -> list[tuple[int, float]]:
        """(position, value) of the k largest values, largest first."""
        order = np.argsort(-self.values, kind="stable")[:k]
        return [(int(i), float(self.values[i])) for i in order]


def leave_one_out(
    ids: list[int], token: int | None, logits_of: Callable[[list[list[int]]], list[Float32]]
) -> Dependence:
    """logits_of: the logits after the last token of each of several sequences. UsageError: there is one token only."""
    if len(ids) < 2:
        raise UsageError("dependence: expected at least two tokens: without its only one a text is empty")
    (row,) = logits_of([ids])
    whole = Distribution(row)
    chosen = int(row.argmax()) if token is None else token
    values = np.empty(len(ids))
    for start in range(0, len(ids), AT_ONCE):
        places = range(start, min(start + AT_ONCE, len(ids)))
        rows = logits_of([ids[:i] + ids[i + 1 :] for i in places])
        for i, without in zip(places, rows, strict=True):
            values[i] = whole.logprob(chosen) - Distribution(without).logprob(chosen)
    return Dependence(np.array(ids, np.int32), chosen, whole.logprob(chosen), "leave_one_out", values)
