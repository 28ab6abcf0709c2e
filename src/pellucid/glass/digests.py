"""Eight bytes that stand for a row of floats, and one number from which the gap between two rows can be estimated."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b, shake_128

import numpy as np
from numpy.typing import NDArray

from pellucid.types import Float32, Int32


def digest(row: Float32) -> int:
    """BLAKE2b with 8 bytes of output, over the row's float32 in little-endian order, read as a little-endian
    integer."""
    data = np.ascontiguousarray(row, "<f4")
    return int.from_bytes(blake2b(data.data, digest_size=8).digest(), "little")


def digest_ids(token_ids: Int32) -> str:
    """Of the tokens of a context, 16 hexadecimal digits: BLAKE2b with 8 bytes of output over int32, little-endian."""
    return blake2b(np.ascontiguousarray(token_ids, "<i4").data, digest_size=8).hexdigest()


@cache
def signs(width: int) -> NDArray[np.float32]:
    """float32 [width] of +1 and -1: the bits of SHAKE-128("pellucid sketch"), lowest first; 1 is -1."""
    data = shake_128(b"pellucid sketch").digest(-(-width // 8))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=width, bitorder="little")
    return (1 - 2.0 * bits).astype(np.float32)


def sketch(row: Float32) -> float:
    """The row's product with `signs`. Of two rows, the square of the difference of their sketches is in the mean over
    signs the square of their distance (Alon, Matias, Szegedy 1996), so the difference is an estimate of the
    distance."""
    return float(np.dot(row, signs(len(row))))
