"""forced_bos_ids, forced_eos_ids: tokens that must stand at the second and at the last place."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.errors import UsageError
from pellucid.sampling.base import Scope, Step, parameter, samplers, shared, stage
from pellucid.types import Float32


@samplers.register("forced_tokens")
@stage
class ForcedTokens:
    """The forced ids get the logit 0 and all others -inf, as in transformers: of several each is as probable."""

    order: ClassVar[int] = 460
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    forced_bos_ids: tuple[int, ...] = parameter(
        (), "ids", "token ids of which one must follow a prompt of exactly one token"
    )
    forced_eos_ids: tuple[int, ...] = parameter(
        (), "ids", "token ids of which one must be the last that max_tokens allows"
    )
    max_tokens: int | None = shared(None)

    def __post_init__(self) -> None:
        if self.forced_eos_ids and self.max_tokens is None:
            raise UsageError("forced_eos_ids acts on the last token that max_tokens allows; set max_tokens")

    def __call__(self, step: Step, logits: Float32) -> Float32:
        ids: tuple[int, ...] = ()
        if self.forced_bos_ids and len(step.token_ids) == 1:
            ids = self.forced_bos_ids
        if self.max_tokens is not None and step.num_generated == self.max_tokens - 1:
            ids = self.forced_eos_ids or ids
        if ids:
            logits = np.full_like(logits, -np.inf)
            logits[list(ids)] = 0.0
        return logits
