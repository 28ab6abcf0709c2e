"""The record of a step of a generation that is held in the hand, while it is open and after it was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pellucid.glass.noise import numeric_noise
from pellucid.glass.record import Record, Seconds, manifest_of, mask_of
from pellucid.sampling.memory import States
from pellucid.sampling.record import Past
from pellucid.sampling.sampler import Sampler, StepOf

if TYPE_CHECKING:
    from pellucid.engine.held import Cost
    from pellucid.engine.request import Pass
    from pellucid.held.generation import Generation
    from pellucid.held.plan import Plan
    from pellucid.held.steps import Step


class Origin(NamedTuple):
    """What a choice is a function of, besides the logits; kept of a step that was taken. computed, reused: positions
    since the step before; made_by: the newest pass when the logits were there."""

    history: Past
    states: States
    plan: Plan
    computed: int
    reused: int
    made_by: Pass | None


def origin_of(generation: Generation, before: Cost, made_by: Pass | None) -> Origin:
    """Of the step that is open now."""
    sequence, plan, cost = generation._held.sequence, generation._plan, generation.cost
    history = Past(
        sequence.token_ids.copy(),
        sequence.num_prompt,
        sequence.sample_index,
        sequence.stop_ids.copy(),
        sequence.num_dropped,
    )
    states = plan.sampler.states(history)
    computed, reused = cost.computed - before.computed, cost.reused - before.reused
    return Origin(history, states, plan, computed, reused, made_by)


def record_of_step(step: Step) -> Record:
    """Of an open step: of the token that would be chosen. NoTokenLeftError: none would."""
    generation, origin = step._generation, step.origin
    params = origin.plan.params
    seed = params.seed if params.seed is not None else 0  # only greedy parameters have none
    llm, made_by = generation._llm, origin.made_by
    token, kind = step.token_id, "drawn" if step.record is None else step.record.kind
    if token is None:
        sampler = Sampler(params.replace(logprobs=None), seed)
        now = StepOf(origin.history, sampler.seed, origin.states)
        token = sampler.draw(now, sampler.run(now, step.effective_logits))
    return Record(
        position=step.position,
        token_id=token,
        kind=kind,
        history=origin.history,
        logits=step.logits,
        params=params,
        seed=seed,
        states=origin.states,
        manifest=manifest_of(
            origin.history,
            mask_of(llm._need().model.layers),
            origin.computed,
            origin.reused,
            made_by.number if made_by else 0,
            made_by.num_rows if made_by else 0,
        ),
        seconds=Seconds(
            schedule=made_by.schedule if made_by else 0.0,
            forward=made_by.forward if made_by else 0.0,
        ),
        noise_margin=numeric_noise(llm.info.formats),
        text_of=llm.tokenizer.token_text,
        effective_logits=step.effective_logits,
        from_draft=step.record is not None and step.record.from_draft,
    )


def altered_of(step: Step) -> dict[int, float] | None:
    """The logits that the caller had changed: token id -> value; None: none."""
    changed = step.effective_logits
    if changed is step.logits:
        return None
    ids = np.flatnonzero(changed.view(np.int32) != step.logits.view(np.int32))
    return dict(zip(ids.tolist(), changed[ids].tolist(), strict=True))
