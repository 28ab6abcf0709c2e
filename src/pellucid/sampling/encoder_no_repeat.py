"""encoder_no_repeat_ngram_size: no n-gram of the prompt occurs in the output."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.sampling.ngrams import followers
from pellucid.types import Float32


@samplers.register("encoder_no_repeat")
@stage
class EncoderNoRepeat:
    """transformers' name: for a model without an encoder its "encoder input" is the prompt."""

    order: ClassVar[int] = 440
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    encoder_no_repeat_ngram_size: int = parameter(
        0,
        "int",
        "no sequence of this many tokens of the prompt can occur in the output; 0: off",
        minimum=0,
        maximum=2**31 - 1,
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.encoder_no_repeat_ngram_size > 0:
            prompt = step.token_ids[: step.num_prompt]
            logits[followers(prompt, step.token_ids, self.encoder_no_repeat_ngram_size)] = -np.inf
        return logits
