"""How a generation chooses and when it ends: what follows from its parameters, shared by forks that keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pellucid.engine.ending import Ending
from pellucid.errors import UsageError
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Sampler

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.settings import Settings


class Plan(NamedTuple):
    """sampler: chooses. full: the same with the processors, too, that cannot change a greedy choice: to be looked
    at."""

    params: SamplingParams
    settings: Settings
    sampler: Sampler
    full: Sampler
    ending: Ending

    @classmethod
    def of(cls, llm: LLM, params: SamplingParams, settings: Settings) -> Plan:
        """params: resolved, so that they have a seed where chance decides; settings: theirs and the model's.

        Errors: UsageError (n is not 1; a token id is not in the vocabulary)."""
        loaded = llm._need()
        if params.n != 1:
            raise UsageError(
                f"a Generation is one sample, got n={params.n}; fork it with another sample_index"
            )
        params = llm._bound(params)  # of a file they come as they were written
        params.check_vocabulary(loaded.model.vocabulary_size)
        seed = params.seed if params.seed is not None else 0  # only greedy parameters have none
        full = Sampler(params.replace(logprobs=0) if params.logprobs is None else params, seed)
        ending = Ending.of(params, loaded.eos_ids, loaded.capacity.context_length)
        return cls(params, settings, Sampler(params, seed), full, ending)

    def changed(
        self, llm: LLM, params: SamplingParams | None, overrides: dict[str, Any], prompt_ids: list[int]
    ) -> Plan:
        """With other parameters: `params` (None: these) and overrides. A seed that nobody gives stays."""
        if isinstance(params, SamplingParams) and params.seed is None and self.params.seed is not None:
            overrides = {"seed": self.params.seed, **overrides}
        chosen, listed = llm._resolve(self.params if params is None else params, overrides, False)
        if (chosen.max_tokens, chosen.min_tokens) != (self.params.max_tokens, self.params.min_tokens):
            llm._check_room(prompt_ids, chosen)
        return Plan.of(llm, chosen, llm.settings.merged(listed))
