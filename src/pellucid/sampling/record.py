"""Why a token was chosen: every stage's effect, the noise, the runner-up. Recomputed from what made the choice.

A choice is a function of (logits, history, parameters, seed, sample index, states), so nothing has to be kept while
generating: `explain_choice` runs it again, slowly and with its eyes open, and must come to the same token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid import _native
from pellucid.errors import UsageError
from pellucid.sampling.distribution import Distribution
from pellucid.sampling.memory import States
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.random import SAMPLE_STREAM
from pellucid.sampling.sampler import ConstraintStep, NoTokenLeftError, Sampler, StepOf, constraint_step
from pellucid.types import Float32, Int32

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What one stage did.

    removed, left: tokens that it excluded, and that can be chosen after it. removed_probability: theirs in the
    distribution that it was given. moved: tokens left whose logit it changed. reordered: whether those left stand in
    another order (None: nobody looked). logit: of the chosen token after the stage. top: the most probable token
    after it.
    """

    name: str
    removed: int
    left: int
    removed_probability: float
    moved: int
    reordered: bool | None
    logit: float
    top: int


@dataclass(frozen=True, slots=True)
class ChoiceRecord:
    """One choice. Scores are float64: the processed logit plus the noise (0 for a greedy choice).

    raw_rank: 0 for the model's most probable token. raw_logprob, logprob: before and after all stages.
    runner_up: the next best score's token, None if only one was left; margin: how much lower its score is (inf
    without one). noise, runner_up_noise: Gumbel noise of the two. states: of stages with feedback, before the choice.
    constraint: what it allowed, and the token that stood first before it; None where there is none.
    """

    position: int
    token_id: int
    raw_logit: float
    raw_rank: int
    raw_logprob: float
    stages: tuple[StageRecord, ...]
    num_left: int
    logit: float
    logprob: float
    noise: float
    score: float
    runner_up: int | None
    runner_up_logit: float
    runner_up_noise: float
    margin: float
    states: States = field(default_factory=dict)
    constraint: ConstraintStep | None = None

    @property
    def named_ids(self) -> set[int]:
        """The tokens that it speaks of."""
        named = (self.token_id, self.runner_up, *(stage.top for stage in self.stages))
        return {each for each in named if each is not None}

    def to_dict(self) -> dict[str, Any]:
        """In plain types."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Past:
    """A `History` from its parts."""

    token_ids: Int32
    num_prompt: int
    sample_index: int
    stop_ids: Int32
    num_dropped: int = 0
    companion_logits: Float32 | None = None

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt


def explain_choice(
    logits: Float32,
    token_ids: Iterable[int] | Int32,
    params: SamplingParams,
    seed: int,
    sample_index: int = 0,
    position: int | None = None,
    *,
    num_prompt: int,
    stop_ids: Iterable[int] = (),
    states: States | None = None,
    companion_logits: Float32 | None = None,
) -> ChoiceRecord:
    """The choice at `position` (None: after all token_ids), made again.

    logits: float32 [vocabulary] that the model gave there. token_ids: prompt and output; those from `position` on are
    not looked at. seed: of the request (its result names it). num_prompt: how many are the prompt. stop_ids: the ids
    that would have ended the sequence. states: `ChoiceRecord.states` or `Sampler.states`; None where no stage has one.
    companion_logits: those after the negative prompt, under guidance.
    UsageError: a position outside the tokens, or states missing. NoTokenLeftError as when choosing.
    """
    ids = np.asarray(list(token_ids) if not isinstance(token_ids, np.ndarray) else token_ids, np.int32)
    at = len(ids) if position is None else position
    if not num_prompt <= at <= len(ids):
        raise UsageError(
            f"position: expected {num_prompt} (the first of the output) to {len(ids)}, got {position}"
        )
    ends = np.array(sorted(stop_ids), np.int32)
    past = Past(ids[:at], num_prompt, sample_index, ends, companion_logits=companion_logits)
    sampler = Sampler(params, seed)
    known = sampler.states(past) if states is None else states
    if states is None and known and at > num_prompt:
        raise UsageError(
            f"states: {', '.join(known)} depends on earlier choices; give the states before this one"
        )
    return explain(sampler, StepOf(past, sampler.seed, known), logits)


def explain(sampler: Sampler, step: StepOf, logits: Float32, *, orders: bool = True) -> ChoiceRecord:
    """The record of one choice of a sampler. orders: whether to look for stages that changed the order, which takes
    sorting the vocabulary for each."""
    effects: list[tuple[str, Float32, Float32]] = []
    processed = sampler.run(step, logits, lambda name, a, b: effects.append((name, a, b.copy())))
    token = sampler.draw(step, processed)
    if token < 0:
        raise NoTokenLeftError(f"no token is left at position {len(step.token_ids)}")
    left = np.flatnonzero(processed > -np.inf).astype(np.int32)
    noise = np.zeros(len(left))
    if not sampler.greedy:
        position = len(step.token_ids)
        _native.gumbel(step.seed, step.sample_index, position, SAMPLE_STREAM, left, noise)
    scores = processed[left].astype(np.float64) + noise
    chosen = int(np.searchsorted(left, token))
    others = np.where(left == token, -np.inf, scores)
    second = int(np.argmax(others))
    alone = len(left) == 1
    return ChoiceRecord(
        position=len(step.token_ids),
        token_id=token,
        raw_logit=float(logits[token]),
        raw_rank=Distribution(logits).rank(token),
        raw_logprob=float(logits[token]) - _native.log_normalizer(logits),
        stages=tuple(_stage(name, before, after, token, orders) for name, before, after in effects),
        num_left=len(left),
        logit=float(processed[token]),
        logprob=float(processed[token]) - _native.log_normalizer(processed),
        noise=float(noise[chosen]),
        score=float(scores[chosen]),
        runner_up=None if alone else int(left[second]),
        runner_up_logit=-np.inf if alone else float(processed[left[second]]),
        runner_up_noise=0.0 if alone else float(noise[second]),
        margin=np.inf if alone else float(scores[chosen] - others[second]),
        states=dict(step.states),
        constraint=next((constraint_step(a, b) for name, a, b in effects if name == "constraint"), None),
    )


def _stage(name: str, before: Float32, after: Float32, token: int, orders: bool) -> StageRecord:
    could, can = before > -np.inf, after > -np.inf
    removed, kept = could & ~can, np.flatnonzero(could & can)
    probability = 0.0
    if removed.any():
        p: Float64 = np.empty(len(before))
        _native.probabilities(before, p)
        probability = float(p[removed].sum())
    return StageRecord(
        name,
        removed=int(removed.sum()),
        left=int(can.sum()),
        removed_probability=probability,
        moved=int(np.count_nonzero(before[kept] != after[kept])),
        reordered=_reordered(before[kept], after[kept]) if orders else None,
        logit=float(after[token]),
        top=_native.argmax(after),
    )


def _reordered(before: Float32, after: Float32) -> bool:
    """Whether the order (largest first, then first first) is another one."""
    if np.array_equal(before, after):
        return False
    order = np.argsort(-before, kind="stable")
    ordered = after[order]
    falls = ordered[:-1] > ordered[1:]
    ties_in_order = (ordered[:-1] == ordered[1:]) & (order[:-1] < order[1:])
    return not bool(np.all(falls | ties_in_order))
