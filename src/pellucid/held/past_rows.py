"""The logits behind tokens that stand in a generation already, and the choice that its settings make of them: computed
again, with the bits that they had."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pellucid.errors import UsageError
from pellucid.sampling.record import ChoiceRecord, Past, explain
from pellucid.sampling.sampler import StepOf

if TYPE_CHECKING:
    from pellucid.engine.held import Cost, Held
    from pellucid.held.generation import Generation
    from pellucid.types import Float32

Take = Callable[[int, "Float32"], None]
"""Takes (position, float32 [vocabulary]): the row from which the token at this position follows, that is, the logits
after the token at position - 1. It is valid during the call only."""


def past_rows(generation: Generation, start: int, stop: int, take: Take) -> Cost:
    """Calls `take` for each position of [start, stop), ascending.

    1 <= start < stop <= len(generation) + 1: nothing predicts the first token; the last row is that of the token
    which comes next. The generation stays as it is: a fork of it is cut to the positions that are needed, and shares
    what is computed of those before. Returns what that cost. Errors: UsageError.
    """
    length = len(generation)
    if not 1 <= start < stop <= length + 1:
        raise UsageError(f"past rows: expected 1 <= start < stop <= {length + 1}, got {start} and {stop}")
    fork = generation._held.fork()
    try:
        if stop - 1 < length:
            fork.truncate(stop - 1)
        fork.first_logit = start - 1

        def on_rows(_: Held, position: int, rows: Float32) -> None:
            for offset, row in enumerate(rows, 1):
                take(position + offset, row)

        generation._llm._open_driver().evaluate([fork], on_rows)
        cost = fork.cost
    finally:
        fork.close()
    return cost._replace(reused=stop - 1 - (cost.computed - cost.recomputed))


def choice_at(generation: Generation, position: int, logits: Float32, *, orders: bool = True) -> ChoiceRecord:
    """The choice that the generation's present parameters make at `position` of these logits: the token that stands
    there, if they and the tokens before it were the same when it was drawn. Nothing changes.

    num_prompt <= position <= len(generation). orders: as of `explain`.
    Errors: UsageError; NoTokenLeftError: the parameters exclude all.
    """
    plan = generation._plan
    return explain(plan.full, _step_of(generation, position), logits, orders=orders)


def processed_at(generation: Generation, position: int, logits: Float32) -> Float32:
    """float32 [vocabulary]: these logits after every stage of the present parameters, at `position`; with temperature 0
    not tempered. Positions and errors: those of `choice_at`."""
    return generation._plan.full.run(_step_of(generation, position), logits)


def _step_of(generation: Generation, position: int) -> StepOf:
    """A step at this position, as far as stages look at it."""
    sequence, plan = generation._held.sequence, generation._plan
    if not sequence.num_prompt <= position <= len(generation):
        raise UsageError(
            f"choice: expected a position from {sequence.num_prompt} to {len(generation)}, got {position}"
        )
    past = Past(
        generation.token_array[:position], sequence.num_prompt, sequence.sample_index, sequence.stop_ids
    )
    return StepOf(past, plan.full.seed, plan.sampler.states(past))
