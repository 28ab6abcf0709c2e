"""log softmax of a row of logits, float64, never above 0: what sums of whole outputs are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pellucid import _native
from pellucid.types import Float32

Float64 = NDArray[np.float64]


def log_probabilities(logits: Float32) -> Float64:
    """float32 [vocabulary] -> float64 [vocabulary], each <= 0; -inf where the logit is, everywhere if all are.

    A value that rounding puts above 0 becomes 0, so that adding one to a sum never makes it larger: in floating
    point, too, a prefix's score bounds the scores of everything that begins with it.
    """
    if np.max(logits) == -np.inf:
        return np.full(len(logits), -np.inf)
    found: Float64 = logits.astype(np.float64) - _native.log_normalizer(logits)
    return np.minimum(found, 0.0, out=found)
