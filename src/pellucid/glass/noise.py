"""How far logits move when the same is computed in another way: two tokens that are nearer than that are a tie in all
but name.

Within pellucid a step's logits have the same bits always. This is about other engines, other KV formats, other builds:
on them a near-tie may fall the other way, and every token after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# Change of the distance between the two largest logits from a KV cache in i16 to one in float32, 99th percentile over
# 512 positions of WikiText-2: SmolLM2-135M Q4_1 0.355, Gemma-3-270M Q4_K_M 0.263 (with float16 0.347 and 0.307). The
# argmax flipped at 18 and 16 of the positions, at one with a margin of 0.360, at the others below 0.28.
# (bench/record.py noise)
QUANTISED: Final = 0.36
# Weights in floats: the largest difference from transformers is about 1e-6 of the logits' range (tests/parity).
FLOATS: Final = 1e-3

_FLOAT_FORMATS = frozenset({"F32", "F16", "BF16"})


def numeric_noise(formats: Iterable[str]) -> float:
    """In units of logits, for a model whose weights have these formats."""
    return FLOATS if set(formats) <= _FLOAT_FORMATS else QUANTISED
