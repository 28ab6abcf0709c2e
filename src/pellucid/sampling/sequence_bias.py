"""sequence_bias: a number added where a token would complete a sequence."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.sampling.ngrams import ends_with
from pellucid.types import Float32


@samplers.register("sequence_bias")
@stage
class SequenceBias:
    """The biases of all sequences that a token would complete are added up, in the order given, then to its logit."""

    order: ClassVar[int] = 110
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = parameter(
        (),
        "sequence_bias",
        "sequence of token ids -> number added to the logit of its last token, where the others have just been",
        minimum=-1000.0,
        maximum=1000.0,
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        sums: dict[int, np.float32] = {}
        for ids, bias in self.sequence_bias:
            if ends_with(step.token_ids, ids[:-1]):
                sums[ids[-1]] = sums.get(ids[-1], np.float32(0)) + np.float32(bias)
        for token, total in sums.items():
            logits[token] += total
        return logits
