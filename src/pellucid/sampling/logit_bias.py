"""logit_bias: a number added to the logits of chosen tokens."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from pellucid.sampling.base import History, Scope, parameter, samplers, stage
from pellucid.types import Float32, Int32


@samplers.register("logit_bias")
@stage
class LogitBias:
    order: ClassVar[int] = 100
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    logit_bias: tuple[tuple[int, float], ...] = parameter(
        (),
        "bias",
        "token id -> number added to its logit (to exclude a token, use banned_ids)",
        minimum=-1000.0,
        maximum=1000.0,
    )

    @cached_property
    def _ids(self) -> Int32:
        return np.array([i for i, _ in self.logit_bias], np.int32)

    @cached_property
    def _biases(self) -> Float32:
        return np.array([bias for _, bias in self.logit_bias], np.float32)

    def __call__(self, history: History, logits: Float32) -> Float32:
        logits[self._ids] += self._biases
        return logits
