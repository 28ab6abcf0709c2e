"""The record of a step: what went into the pass, the distribution that came out, the choice, and what is odd about it.

Everything is recomputed from what made the choice (logits, the tokens before, parameters, seed, states) when it is
asked for. So nothing of it costs anything while a text is generated, and recomputing the choice gives the token,
always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np

from pellucid.glass.digests import digest_ids
from pellucid.sampling.base import History
from pellucid.sampling.distribution import Distribution
from pellucid.sampling.memory import States
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.record import ChoiceRecord, explain
from pellucid.sampling.sampler import Sampler, StepOf
from pellucid.types import Float32, LayerSpec

IMPROBABLE: Final = 0.01  # under the model's own distribution

TextOf = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Seconds:
    """tokenize: of the prompt, told with the first token. schedule, forward, choose: of the whole pass, which
    `num_rows` rows may have shared. text: of this token's text."""

    tokenize: float = 0.0
    schedule: float = 0.0
    forward: float = 0.0
    choose: float = 0.0
    text: float = 0.0


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the forward pass was given for this token.

    num_positions: the context, positions 0 to num_positions - 1; the last one's row gave the logits. num_computed: rows
    computed for this sequence since its last token (all of the prompt that was not reused, and drafts that were
    refused, count); num_reused: positions found in the prefix cache or taken from another branch; all others were
    kept from before. None: not known. mask: who attends to whom. digest: of the context's ids
    (`glass.digests.digest_ids`). pass_number, num_rows: the pass, and the rows that it had for all sequences; 0: not
    known.
    """

    num_positions: int
    num_computed: int | None
    num_reused: int | None
    mask: str
    digest: str
    pass_number: int = 0
    num_rows: int = 0


@dataclass(frozen=True, slots=True)
class Flags:
    """near_tie: the runner-up is nearer than another way of computing moves logits (`glass.noise`).
    forced_by_constraint: the constraint left this token only. constrained: it excluded the most probable token.
    only_one: all stages together left this token only. improbable: the model alone gives the token less than 1%.
    from_draft: it had been guessed, and the guess held. forced: not chosen, but forced, given or kept by the caller.
    altered: the caller had changed the logits."""

    near_tie: bool = False
    forced_by_constraint: bool = False
    constrained: bool = False
    only_one: bool = False
    improbable: bool = False
    from_draft: bool = False
    forced: bool = False
    altered: bool = False

    @property
    def names(self) -> list[str]:
        """Those that are up."""
        return [name for name in self.__slots__ if getattr(self, name)]


@dataclass(frozen=True)
class Record:
    """One step. logits: float32 [vocabulary], of the model; effective_logits: what the choice started from, other only
    where the caller had altered them. kind: as of a StepRecord. noise_margin: see `glass.noise`."""

    position: int
    token_id: int
    kind: str
    history: History
    logits: Float32
    params: SamplingParams
    seed: int
    states: States
    manifest: Manifest
    seconds: Seconds
    noise_margin: float
    text_of: TextOf = field(repr=False)
    effective_logits: Float32 = field(repr=False)
    from_draft: bool = False

    @cached_property
    def distribution(self) -> Distribution:
        """The model's own: any top-k, entropy, the probability of any token."""
        return Distribution(self.logits)

    @cached_property
    def choice(self) -> ChoiceRecord:
        """The choice made again: every stage, noise, runner-up, margin. Of a forced token: what would have been
        chosen."""
        sampler = self._every_stage
        states = {**sampler.states(_before_all(self.history)), **self.states}
        return explain(sampler, StepOf(self.history, sampler.seed, states), self.effective_logits)

    @property
    def processed(self) -> Float32 | None:
        """The logits after all stages; None: no stage changed them."""
        sampler = self._every_stage
        step = StepOf(self.history, sampler.seed, self.choice.states)
        after = sampler.run(step, self.effective_logits)
        return None if np.array_equal(after, self.logits) else after

    @cached_property
    def _every_stage(self) -> Sampler:
        """Those, too, that cannot change a greedy choice."""
        params = self.params if self.params.logprobs is not None else self.params.replace(logprobs=0)
        return Sampler(params, self.seed)

    def recompute(self) -> int:
        """The token that logits, history, parameters, seed and states give: `token_id`, unless the caller forced it."""
        sampler = Sampler(self.params, self.seed)
        step = StepOf(self.history, sampler.seed, self.states)
        return sampler.draw(step, sampler.run(step, self.effective_logits))

    @property
    def tie_margin(self) -> float:
        """A margin of scores below this is a near-tie: the numeric noise, divided by the temperature as logits are."""
        return self.noise_margin / (1.0 if self.params.greedy else self.params.temperature)

    @cached_property
    def flags(self) -> Flags:
        choice = self.choice
        wanted = int(np.argmax(self.effective_logits))
        kept_from = forced = False
        for stage in choice.stages:
            if stage.name == "constraint":
                kept_from, forced = stage.top != wanted, stage.left == 1
            wanted = stage.top
        return Flags(
            near_tie=choice.margin < self.tie_margin,
            forced_by_constraint=forced,
            constrained=kept_from,
            only_one=choice.runner_up is None,
            improbable=self.distribution.probability(self.token_id) < IMPROBABLE,
            from_draft=self.from_draft,
            forced=self.kind != "drawn",
            altered=self.effective_logits is not self.logits,
        )

    def probability(self, token_id: int) -> float:
        return self.distribution.probability(token_id)

    def to_dict(self) -> dict[str, Any]:
        """In plain types; the distribution as its entropy and the ten most probable tokens. A logit of a token that
        nothing could choose, or the margin of one that nothing else was left for, is infinite."""
        top = self.distribution.top(10)
        return {
            "position": self.position,
            "token_id": self.token_id,
            "text": self.text_of(self.token_id),
            "kind": self.kind,
            "probability": self.probability(self.token_id),
            "rank": self.distribution.rank(self.token_id),
            "entropy": self.distribution.entropy,
            "top": [
                {"token_id": t, "text": self.text_of(t), "probability": self.probability(t)} for t in top
            ],
            "choice": self.choice.to_dict(),
            "flags": self.flags.names,
            "manifest": {name: getattr(self.manifest, name) for name in Manifest.__slots__},
            "seconds": {name: getattr(self.seconds, name) for name in Seconds.__slots__},
            "seed": self.seed,
            "sample_index": self.history.sample_index,
        }


class _Beginning:
    """A history without its tokens: stages are in their first state there."""

    def __init__(self, history: History) -> None:
        self.token_ids = history.token_ids[:0]
        self.num_prompt = self.num_generated = self.num_dropped = 0
        self.sample_index, self.stop_ids = history.sample_index, history.stop_ids
        self.companion_logits: Float32 | None = None


def _before_all(history: History) -> History:
    return _Beginning(history)


def mask_of(layers: list[LayerSpec]) -> str:
    """Who attends to whom, in words."""
    windows: dict[int, int] = {}
    for layer in layers:
        if layer.window is not None:
            windows[layer.window] = windows.get(layer.window, 0) + 1
    parts = [
        f"{count} of {len(layers)} layers see the last {window} positions"
        for window, count in windows.items()
    ]
    return "; ".join(["causal", *parts])


def manifest_of(
    history: History,
    mask: str,
    num_computed: int | None = None,
    num_reused: int | None = None,
    pass_number: int = 0,
    num_rows: int = 0,
) -> Manifest:
    ids = history.token_ids
    return Manifest(len(ids), num_computed, num_reused, mask, digest_ids(ids), pass_number, num_rows)
