"""Overflow "slide" for a prompt that is itself too long."""

from __future__ import annotations

from pellucid.outputs import Drop
from pellucid.sampling.limits import slide_amount
from pellucid.sampling.params import SamplingParams


def slid_prompt(num_tokens: int, params: SamplingParams, context_length: int) -> Drop | None:
    """What is taken out of a prompt so that one token can be generated after it: as often as it takes, the amount
    by which a full context slides. None: nothing. UsageError: such a slide would leave nothing.

    At least one token after the kept head stays, because slide_amount leaves one in a full context.
    """
    keep = params.slide_keep
    amount = slide_amount(keep, params.slide_drop, context_length)
    excess = num_tokens - (context_length - 1)
    return Drop(0, keep, -(-excess // amount) * amount) if excess > 0 else None
