"""Speculative decoding, lossless: several guessed tokens are checked in one pass, and the text is the plain one's.

The idea is of Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023 (2302.01318); the check is ours
(`verify.py`): keyed noise makes a choice repeatable, so it is compared instead of accepted by a second chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pellucid.decoding.base import strategies
from pellucid.decoding.drafts.base import NO_DRAFT, Draft, Drafter
from pellucid.decoding.drafts.context import ContextDrafter
from pellucid.decoding.drafts.costs import PassCosts
from pellucid.decoding.drafts.grammar import GrammarDrafter
from pellucid.decoding.drafts.policy import NOTHING, Plan, Policy
from pellucid.decoding.verify import verify
from pellucid.sampling.base import History
from pellucid.sampling.constraint import constraint_of
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Choice, Sampler
from pellucid.types import Float32, Screened


@dataclass(frozen=True)
class Drafting:
    """What requests of one engine speculate with. drafters: makes those of one request, from its parameters and
    seed, in addition to its context and its constraint. vocabulary_size: None: not known here."""

    costs: PassCosts = field(default_factory=PassCosts)
    vocabulary_size: int | None = None
    drafters: Callable[[SamplingParams, int], Sequence[Drafter]] = lambda params, seed: ()


@dataclass(slots=True)
class _Guess:
    """The draft of one sample: of whom, all that was guessed, and how much of it is to be checked."""

    source: str
    draft: Draft
    plan: Plan


@strategies.register("speculative")
class Speculative:
    proposes: ClassVar[bool] = True

    def __init__(self, params: SamplingParams, seed: int, drafting: Drafting | None = None) -> None:
        drafting = Drafting() if drafting is None else drafting
        self._sampler = Sampler(params, seed)
        self.chooses = self._sampler.chooses
        self._always = params.speculation == "always"
        self._policy = Policy(drafting.costs, params.max_drafts)
        self._vocabulary_size = drafting.vocabulary_size
        constraint = constraint_of(self._sampler.stages)
        self._grammar = None if constraint is None else GrammarDrafter(constraint)
        own: list[Drafter] = (
            [ContextDrafter()] if self._grammar is None else [self._grammar, ContextDrafter()]
        )
        self._drafters = sorted([*own, *drafting.drafters(params, seed)], key=lambda each: each.costly)
        self._guesses: dict[int, _Guess] = {}
        self._failures: dict[str, str] = {}  # not yet told

    # --- DecodingStrategy -----------------------------------------------------------------------------
    def propose(self, history: History) -> list[int]:
        self._guesses.pop(history.sample_index, None)
        if not self._always and self._policy.hopeless:
            return []
        best: _Guess | None = None
        for drafter in self._drafters.copy():
            guess = self._ask(drafter, history, NOTHING if best is None else best.plan)
            if guess is not None and (best is None or guess.plan.gain > best.plan.gain):
                best = guess
            if self._always and best is not None and best.plan.length:
                break
        if best is None:
            return []
        self._guesses[history.sample_index] = best
        return best.draft.ids[: best.plan.length]

    def advance(self, history: History, drafts: list[int], logits: Float32) -> list[Choice]:
        choices = verify(self._sampler.choose, history, drafts, logits)
        self.learn(history.sample_index, [choice.token_id for choice in choices])
        return choices

    def choose(self, history: History, drafts: list[int], rows: Sequence[Screened]) -> list[Choice]:
        choices = verify(self._sampler.choose_from_bounds, history, drafts, rows)
        self.learn(history.sample_index, [choice.token_id for choice in choices])
        return choices

    # --- SpeculatingStrategy --------------------------------------------------------------------------
    def source(self, sample_index: int) -> str:
        guess = self._guesses.get(sample_index)
        return guess.source if guess is not None else ""

    def take_revised(self, sample_index: int) -> int:
        return 0

    def take_failures(self) -> dict[str, str]:
        failures, self._failures = self._failures, {}
        return failures

    # --- inside ---------------------------------------------------------------------------------------
    def _ask(self, drafter: Drafter, history: History, best: Plan) -> _Guess | None:
        """A drafter's guess with its plan, which may be to check none of it; of a costly one only where it may be
        better than the best so far. A drafter that fails is not asked again."""
        most, gain = self._policy.most, 1.0
        if drafter.costly and not self._always:
            seconds_each = getattr(drafter, "seconds_each", 0.0)
            plan = self._policy.plan(drafter.name, 0, most, seconds_each)
            if plan.gain <= best.gain:
                return None
            most, gain = plan
        try:
            draft = self._checked(drafter, history, drafter.draft(history, most), most)
        except Exception as error:  # a drafter may be anybody's code; without it the text is the same
            self._failures[drafter.name] = f"{type(error).__name__}: {error}"
            self._drafters.remove(drafter)
            return None
        if not draft.ids:
            return None
        if self._always or drafter.costly:
            return _Guess(drafter.name, draft, Plan(len(draft.ids), gain))
        return _Guess(drafter.name, draft, self._policy.plan(drafter.name, draft.confidence, len(draft.ids)))

    def _checked(self, drafter: Drafter, history: History, draft: Draft, most: int) -> Draft:
        ids = [int(token) for token in draft.ids[:most]]
        size = self._vocabulary_size
        if ids and (min(ids) < 0 or (size is not None and max(ids) >= size)):
            raise ValueError(f"it guessed token ids {ids}, which are not all in the vocabulary")
        if self._grammar is not None and drafter is not self._grammar:
            ids = self._grammar.allowed(history, ids)
        return Draft(ids, draft.confidence) if ids else NO_DRAFT

    def learn(self, sample_index: int, chosen: Sequence[int]) -> None:
        """The tokens that came where the last proposal was made."""
        guess = self._guesses.get(sample_index)
        if guess is not None:
            self._policy.note(guess.source, guess.draft.confidence, guess.draft.ids, chosen)
