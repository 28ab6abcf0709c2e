"""When a sample ends: the rules of one request, as a function of its last token and its length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pellucid.sampling.params import SamplingParams
from pellucid.types import Int32


@dataclass(frozen=True)
class Ending:
    """eos_ids: end-of-text tokens, none where they are ignored. max_tokens: of one sample; context_length: of
    prompt and sample."""

    eos_ids: frozenset[int]
    stop_token_ids: frozenset[int]
    max_tokens: int
    context_length: int

    @classmethod
    def of(cls, params: SamplingParams, eos_ids: Iterable[int], context_length: int) -> Ending:
        return cls(
            frozenset() if params.ignore_eos else frozenset(eos_ids),
            frozenset(params.stop_token_ids),
            params.max_tokens if params.max_tokens is not None else context_length,
            context_length,
        )

    @cached_property
    def stop_ids(self) -> Int32:
        """Every id that ends a sample, ascending."""
        return np.array(sorted(self.eos_ids | self.stop_token_ids), np.int32)

    def reason(self, token: int, num_generated: int, num_tokens: int) -> str | None:
        """Why a sample ends with `token`, just appended; None: it goes on."""
        if token in self.eos_ids:
            return "eos"
        if token in self.stop_token_ids:
            return "stop"
        if num_generated >= self.max_tokens:
            return "length"
        if num_tokens >= self.context_length:
            return "context"
        return None
