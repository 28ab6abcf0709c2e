"""From what a caller gives a search to the space that it searches: checked, or refused with the reason."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.front.looking import looking_of
from pellucid.prompts import check_count, check_salt, split_prompts
from pellucid.sampling.sampler import Sampler
from pellucid.search.tree import Constraint, Space

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams

# What gives no fixed distribution of the next token for each prefix.
_REFUSED = {
    "xtc_probability": "xtc decides by chance at each step",
    "mirostat": "mirostat's cut depends on what was drawn before",
    "adaptive_target": "adaptive_p depends on what was drawn before",
}


def space_of(
    llm: LLM,
    prompt: str | Sequence[int],
    params: SamplingParams | None,
    max_tokens: int,
    min_tokens: int,
    constraint: Constraint | None,
    cache_salt: str | None,
    overrides: dict[str, Any],
) -> tuple[Space, Hashable]:
    """The space, and the salt. overrides may hold `interventions`. Errors: those of `LLM.generate`; UsageError: what
    has no fixed distribution."""
    check_count("max_tokens", max_tokens, 1)
    check_count("min_tokens", min_tokens, 0)
    if min_tokens > max_tokens:
        raise UsageError(f"min_tokens={min_tokens} is more than max_tokens={max_tokens}")
    prompts, several = split_prompts(prompt)
    if several:
        raise UsageError("a search takes one prompt; search for each by itself")
    given = {**overrides, "max_tokens": max_tokens}
    (look,) = looking_of(None, given.pop("interventions", ()), 1)
    request = llm._prepare(prompts[0], params, False, False, given, looking=look)
    chosen, watched = request.params, request.watched
    for name, why in _REFUSED.items():
        if getattr(chosen, name, None):
            raise UsageError(f"{name}: {why}, so an output has no fixed probability; leave it out")
    if chosen.speculation not in (None, "off"):
        raise UsageError(
            f"speculation={chosen.speculation!r}: a search opens many continuations in a pass and guesses none; "
            "leave it out"
        )
    if chosen.stop:
        raise UsageError(
            "stop: where a stop string ends depends on text, not on tokens; use stop_token_ids or min_tokens"
        )
    if chosen.n != 1 or chosen.min_tokens or chosen.overflow == "slide":
        raise UsageError(
            "n, min_tokens and overflow are the search's own arguments; leave them out of params"
        )
    stop_ids = np.array(
        sorted((set() if chosen.ignore_eos else set(llm._need().eos_ids)) | set(chosen.stop_token_ids)),
        np.int32,
    )
    # All stages run, also those that cannot change a greedy choice: the whole distribution counts.
    full = Sampler(chosen.replace(logprobs=0), 0)
    sampler = full if full.stages else None
    ids = tuple(int(token) for token in request.prompt_ids)
    other = None if request.companion_ids is None else tuple(int(token) for token in request.companion_ids)
    salt, changes = check_salt(cache_salt), None if watched is None else watched.watch
    space = Space(ids, stop_ids, min_tokens, sampler, constraint, other, changes)
    return space, salt if watched is None else watched.salt(salt)
