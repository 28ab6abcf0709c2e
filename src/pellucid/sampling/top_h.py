"""top_h: a head whose share of the entropy is bounded (Potraghloo et al. 2025, arXiv 2509.02510)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid import _native
from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.sampling.random import log
from pellucid.types import Float32, Int32

_HEAD = 100  # the entropy is that of the 100 most probable tokens, as transformers takes it


@samplers.register("top_h")
@stage
class TopH:
    """Of the first 100 tokens, renormalised: those whose terms -p log(p), added in order, stay within h times the
    sum of all; the first always."""

    order: ClassVar[int] = 580
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "all"

    top_h: float | None = parameter(
        None,
        "float",
        "only the most probable tokens that hold this share of the entropy of the first 100 can be chosen; "
        "None: all",
        above=0.0,
        maximum=1.0,
        optional=True,
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.top_h is None:
            return logits
        ids: Int32 = np.empty(min(_HEAD, len(logits)), np.int32)
        _native.top_k(logits, ids)
        p = np.empty(len(ids), np.float64)
        _native.probabilities(logits[ids], p)
        terms = np.cumsum(-p * log(np.maximum(p, 1e-300)))
        kept = ids[: max(1, int(np.count_nonzero(terms <= self.top_h * terms[-1])))]
        out = np.full_like(logits, -np.inf)
        out[kept] = logits[kept]
        return out
