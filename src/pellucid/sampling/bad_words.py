"""bad_words_ids: sequences of tokens that cannot occur in the output."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.sampling.ngrams import ends_with
from pellucid.types import Float32


@samplers.register("bad_words")
@stage
class BadWords:
    """As in transformers an end-of-text id alone is no bad word: use min_tokens or ignore_eos for that."""

    order: ClassVar[int] = 230
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    bad_words_ids: tuple[tuple[int, ...], ...] = parameter(
        (), "sequences", "sequences of token ids that cannot be completed"
    )
    bad_words_scope: str = parameter(
        "all",
        "choice",
        "whether a bad word may have begun in the prompt (all), or only what the output completes counts (output)",
        choices=("all", "output"),
        modifies=("bad_words_ids",),
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        seen = step.token_ids[step.num_prompt :] if self.bad_words_scope == "output" else step.token_ids
        for ids in self.bad_words_ids:
            if len(ids) == 1 and ids[0] in step.stop_ids:
                continue
            if ends_with(seen, ids[:-1]):
                logits[ids[-1]] = -np.inf
        return logits
