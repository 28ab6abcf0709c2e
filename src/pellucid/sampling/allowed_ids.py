"""allowed_ids: only these tokens can be chosen."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from pellucid.sampling.base import History, Scope, parameter, samplers, stage
from pellucid.types import Float32, Int32


@samplers.register("allowed_ids")
@stage
class AllowedIds:
    order: ClassVar[int] = 200
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    allowed_ids: tuple[int, ...] | None = parameter(
        None, "ids", "the only token ids that can be chosen; None: all", optional=True
    )

    @cached_property
    def _ids(self) -> Int32:
        return np.array(self.allowed_ids or (), np.int32)

    def __call__(self, history: History, logits: Float32) -> Float32:
        if self.allowed_ids is None:
            return logits
        kept = np.full_like(logits, -np.inf)
        kept[self._ids] = logits[self._ids]
        return kept
