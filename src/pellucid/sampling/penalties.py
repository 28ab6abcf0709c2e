"""Penalties for tokens that have occurred: repetition (multiplicative), presence and frequency (additive)."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.types import Float32


@samplers.register("penalties")
@stage
class Penalties:
    """Repetition (Keskar et al. 2019, arXiv 1909.05858): l / r where l > 0, l * r elsewhere, once for each token
    however often it occurred. Then l - (frequency * count + presence).

    What counts as occurred is penalty_scope (its default is vLLM's and OpenAI's) within penalty_last_n.
    """

    order: ClassVar[int] = 400
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    repetition_penalty: float = parameter(
        1.0, "float", "divides the logits of tokens that occurred (penalty_scope)", above=0.0, maximum=10.0
    )
    presence_penalty: float = parameter(
        0.0, "float", "subtracted once from the logits of tokens that occurred", minimum=-2.0, maximum=2.0
    )
    frequency_penalty: float = parameter(
        0.0, "float", "subtracted for each occurrence", minimum=-2.0, maximum=2.0
    )
    penalty_scope: str = parameter(
        "openai",
        "choice",
        "what counts as occurred: prompt and output (all), the output, or (openai) prompt and output for "
        "repetition_penalty and the output for the others",
        choices=("openai", "all", "output"),
        modifies=("repetition_penalty", "presence_penalty", "frequency_penalty"),
    )
    penalty_last_n: int | None = parameter(
        None,
        "int",
        "penalties look at this many last tokens; None: at all",
        minimum=1,
        maximum=2**31 - 1,
        optional=True,
        modifies=("repetition_penalty", "presence_penalty", "frequency_penalty"),
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        ids, num_prompt = step.token_ids, step.num_prompt
        if self.penalty_last_n is not None and len(ids) > self.penalty_last_n:
            num_prompt = max(0, num_prompt - (len(ids) - self.penalty_last_n))
            ids = ids[len(ids) - self.penalty_last_n :]
        if self.penalty_scope == "output" or (
            self.repetition_penalty == 1.0 and self.penalty_scope == "openai"
        ):
            ids, num_prompt = ids[num_prompt:], 0
        _native.penalize(
            logits,
            ids,
            0 if self.penalty_scope == "all" else num_prompt,
            self.repetition_penalty,
            self.presence_penalty,
            self.frequency_penalty,
        )
        return logits
