"""Penalties for tokens that have occurred: repetition (multiplicative), presence and frequency (additive)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pellucid.sampling.base import History, Scope, parameter, samplers
from pellucid.types import Float32


@samplers.register("penalties")
@dataclass(frozen=True)
class Penalties:
    """As vLLM scopes them: repetition counts prompt and output, presence and frequency the output alone (so
    OpenAI).

    Repetition (Keskar et al. 2019, arXiv 1909.05858): l / r where l > 0, l * r elsewhere, once for each token
    however often it occurred. Then l - frequency * count - presence.
    """

    order: ClassVar[int] = 400
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    repetition_penalty: float = parameter(
        1.0, "float", "divides the logits of tokens in prompt or output; 1: off", above=0.0, maximum=10.0
    )
    presence_penalty: float = parameter(
        0.0, "float", "subtracted once from the logits of tokens in the output", minimum=-2.0, maximum=2.0
    )
    frequency_penalty: float = parameter(
        0.0, "float", "subtracted for each occurrence in the output", minimum=-2.0, maximum=2.0
    )

    def __call__(self, history: History, logits: Float32) -> Float32:
        if self.repetition_penalty != 1.0:
            seen = np.unique(history.token_ids)
            r = np.float32(self.repetition_penalty)
            values = logits[seen]
            logits[seen] = np.where(values > 0, values / r, values * r)
        if self.presence_penalty or self.frequency_penalty:
            ids, counts = np.unique(history.token_ids[history.num_prompt :], return_counts=True)
            penalty = np.float32(self.frequency_penalty) * counts.astype(np.float32)
            logits[ids] -= penalty + np.float32(self.presence_penalty)
        return logits
