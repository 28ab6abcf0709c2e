"""Speculation of a generation that is driven by hand: guesses for the passes of `run`, each choice made as always."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pellucid.engine.held import Held
    from pellucid.front.speculation import Speculation
    from pellucid.held.generation import Generation
    from pellucid.sampling.params import SamplingParams


class Guessing:
    """What one set of parameters guesses with."""

    def __init__(self, speculation: Speculation, params: SamplingParams, salt: Hashable) -> None:
        self._strategy = speculation.strategy(salt, params, params.seed if params.seed is not None else 0)
        self._speculation = speculation
        self._asked_at = -1
        self.failures: dict[str, str] = {}  # drafters that failed and are not asked again

    def guesses(self, held: Held) -> list[int]:
        """For its next evaluation, if that will compute one row. Not while a pass runs: what is guessed from may be
        shared with it."""
        sequence = held.sequence
        if 0 <= self._asked_at < len(held):
            self._strategy.learn(sequence.sample_index, held.token_ids[self._asked_at :].tolist())
        self._asked_at = len(held)
        self._speculation.count_rows()
        drafts = self._strategy.propose(sequence)
        self.failures |= self._strategy.take_failures()
        return drafts


def guess_for(generation: Generation) -> None:
    """Guesses for its next pass, where its parameters ask for speculation. None while activations are captured."""
    params, held = generation.params, generation._held
    sequence = held.sequence
    known = held.logits is not None or sequence.num_behind != 1  # or a prompt is to be computed
    if params.speculation == "off" or known or sequence.watch is not None:
        return
    driver = generation._llm._open_driver()
    if generation.guessing is None:
        generation.guessing = Guessing(driver.speculation, params, sequence.salt)
    with driver.exclusive():
        drafts = generation.guessing.guesses(held)
    if drafts:
        held.draft(drafts)
