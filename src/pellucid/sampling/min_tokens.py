"""min_tokens: no token that would end the text can be chosen before this many are generated."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.sampling.base import History, Scope, parameter, samplers, stage
from pellucid.types import Float32


@samplers.register("min_tokens")
@stage
class MinTokens:
    order: ClassVar[int] = 300
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    min_tokens: int = parameter(
        0,
        "int",
        "generate at least this many tokens: until then end-of-text and stop_token_ids cannot be chosen",
        minimum=0,
        maximum=2**31 - 1,
    )

    def __call__(self, history: History, logits: Float32) -> Float32:
        if history.num_generated < self.min_tokens:
            logits[history.stop_ids] = -np.inf
        return logits
