"""From what a caller gives `LLM.begin` to a Generation: text, ids or messages, and parameters, all checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError
from pellucid.front.looking import looking_of
from pellucid.held.generation import Generation
from pellucid.held.plan import Plan
from pellucid.prompts import check_salt, check_template_variables, is_messages, split_prompts
from pellucid.sampling.limits import check_by_hand

if TYPE_CHECKING:
    from pellucid.front.recorder import Recorder
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import Intervention
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams

    Record = Recorder | str | os.PathLike[str] | None


def begin(
    llm: LLM,
    prompt: Any,
    params: SamplingParams | None,
    *,
    model_defaults: bool,
    parse_special: bool,
    template_variables: Mapping[str, Any] | None,
    cache_salt: str | None,
    sample_index: int,
    capture: Capture | None,
    interventions: Sequence[Intervention],
    overrides: Mapping[str, Any],
    record: Record = None,
) -> Generation:
    """`LLM.begin`."""
    text: str | None = None
    given: str | list[int]
    if is_messages(prompt):
        given = llm.render_chat(prompt, **check_template_variables(template_variables))
    else:
        prompts, several = split_prompts(prompt)
        if several:
            raise UsageError("begin takes one prompt; begin one generation for each")
        given = prompts[0]
        text = given if isinstance(given, str) else None
    if isinstance(sample_index, bool) or not isinstance(sample_index, int) or not 0 <= sample_index < 1 << 31:
        raise UsageError(f"sample_index: expected an int from 0 to 2^31 - 1, got {sample_index!r:.40}")
    (look,) = looking_of(capture, interventions, 1)
    request = llm._prepare(
        given, params, model_defaults, parse_special, overrides, looking=look, open_ended=True
    )
    check_by_hand(request.params)
    plan = Plan.of(llm, request.params, request.settings)
    salt, watched = check_salt(cache_salt), request.watched
    recorder = llm._recorder(record)
    watch = None if watched is None else watched.watch
    held = llm._open_driver().hold(
        request.prompt_ids,
        salt=salt if watched is None else watched.salt(salt),
        watch=watch if recorder is None else recorder.watching(watch),
    )
    if watched is not None and watched.store is not None:
        watched.store.keep_forks = False  # its forks are generations of their own
    held.sequence.sample_index = sample_index
    generation = Generation(llm, held, plan, text)
    if recorder is not None:
        from pellucid.held.generation_record import GenerationRecord

        generation.record = GenerationRecord.begin(recorder, generation, look, salt)
    return generation
