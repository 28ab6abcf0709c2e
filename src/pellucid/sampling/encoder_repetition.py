"""encoder_repetition_penalty: tokens of the prompt become more probable (transformers' "hallucination penalty")."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.types import Float32


@samplers.register("encoder_repetition")
@stage
class EncoderRepetition:
    """The inverse of repetition_penalty, over the prompt alone: l * r where l > 0, l / r elsewhere. transformers'
    name: for a model without an encoder its "encoder input" is the prompt."""

    order: ClassVar[int] = 410
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    encoder_repetition_penalty: float = parameter(
        1.0,
        "float",
        "above 1 it favours tokens of the prompt, below 1 it penalises them; 1: off",
        above=0.0,
        maximum=10.0,
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.encoder_repetition_penalty != 1.0:
            ids = np.unique(step.token_ids[: step.num_prompt])
            values, r = logits[ids], np.float32(1.0 / self.encoder_repetition_penalty)
            logits[ids] = np.where(values < 0, values * r, values / r)
        return logits
