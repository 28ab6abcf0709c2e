"""begin_suppress_tokens: tokens that cannot begin the output."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.types import Float32, Int32


@samplers.register("begin_suppress")
@stage
class BeginSuppress:
    """Acts on the first token of the output; on the second, where the first is forced (forced_bos_ids)."""

    order: ClassVar[int] = 220
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    begin_suppress_tokens: tuple[int, ...] = parameter(
        (), "ids", "token ids that cannot be the first of the output"
    )
    forced_bos_ids: tuple[int, ...] = shared(())

    @cached_property
    def _ids(self) -> Int32:
        return np.array(self.begin_suppress_tokens, np.int32)

    def __call__(self, step: Step, logits: Float32) -> Float32:
        forced = step.num_prompt == 1 and bool(self.forced_bos_ids)
        if step.num_generated == int(forced):
            logits[self._ids] = -np.inf
        return logits
