"""banned_ids: these tokens cannot be chosen."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from pellucid.sampling.base import History, Scope, parameter, samplers, stage
from pellucid.types import Float32, Int32


@samplers.register("banned_ids")
@stage
class BannedIds:
    order: ClassVar[int] = 210
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    banned_ids: tuple[int, ...] = parameter((), "ids", "token ids that cannot be chosen")

    @cached_property
    def _ids(self) -> Int32:
        return np.array(self.banned_ids, np.int32)

    def __call__(self, history: History, logits: Float32) -> Float32:
        logits[self._ids] = -np.inf
        return logits
