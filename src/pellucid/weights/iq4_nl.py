"""IQ4_NL, read as Q8_0: a format that we do not multiply in its own bits, and need not.

llama.cpp's quantiser wrote it for years where Q2_K or Q3_K was asked for and the rows are not of whole
super-blocks of 256 (Qwen2.5-0.5B, SmolLM2, Gemma 3 1B), so files with those names hold it. A block is a
float16 scale and 32 codes of 4 bits, each of which stands for one of 16 int8 numbers. Q8_0 holds the same
scale and those numbers themselves: the same values to the last bit, in 34 bytes rather than 18.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pellucid.types import Bytes

# ggml-common.h, kvalues_iq4nl: what each code stands for.
LEVELS: Final = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8
).view(np.uint8)
LABEL: Final = "IQ4_NL"
BLOCK_BYTES: Final = 18  # float16 scale, then codes: byte i has value i in its low half, value 16 + i above


# The byte for each byte of codes: of its low half, of its high half.
_LOW: Final = LEVELS[np.arange(256) & 15].tobytes()
_HIGH: Final = LEVELS[np.arange(256) >> 4].tobytes()


def as_q8_0(data: Bytes) -> Bytes:
    """uint8 [blocks * 18] as the uint8 [blocks * 34] of Q8_0 with the same values."""
    blocks = data.reshape(-1, BLOCK_BYTES)
    out = np.empty((len(blocks), 34), np.uint8)
    out[:, :2] = blocks[:, :2]
    codes = blocks[:, 2:].tobytes()
    out[:, 2:18] = np.frombuffer(codes.translate(_LOW), np.uint8).reshape(-1, 16)
    out[:, 18:] = np.frombuffer(codes.translate(_HIGH), np.uint8).reshape(-1, 16)
    return out.reshape(-1)
