"""no_repeat_ngram_size: no n-gram of tokens occurs twice (Paulus et al. 2017, arXiv 1705.04304)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.sampling.ngrams import followers
from pellucid.types import Float32


@samplers.register("no_repeat_ngram")
@stage
class NoRepeatNgram:
    order: ClassVar[int] = 430
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    no_repeat_ngram_size: int = parameter(
        0,
        "int",
        "no sequence of this many tokens can occur twice in prompt and output; 0: off",
        minimum=0,
        maximum=2**31 - 1,
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.no_repeat_ngram_size > 0:
            logits[followers(step.token_ids, step.token_ids, self.no_repeat_ngram_size)] = -np.inf
        return logits
