"""What several families do with arrays of tokens and of bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.types import Int32


def common_length(a: Int32, b: Int32) -> int:
    """How many leading tokens, int32 [tokens], are the same."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def as_flags(bits: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """bool [count] of an array of unsigned integers, the lowest bit first."""
    return np.unpackbits(bits.view(np.uint8), count=count, bitorder="little").view(np.bool_)
