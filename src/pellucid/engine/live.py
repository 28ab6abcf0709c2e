"""A request while it runs: its samples that have not ended, and when one of them ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from pellucid.decoding.base import ChoosingStrategy, DecodingStrategy, SpeculatingStrategy, strategies
from pellucid.engine.ending import Ending
from pellucid.engine.pair import Pair
from pellucid.engine.request import Pass, PassDrafts, Request, TokenEvent
from pellucid.engine.sequence import Sequence
from pellucid.sampling.limits import slide_amount
from pellucid.sampling.sampler import Choice, Logprobs
from pellucid.types import Logits


@dataclass(eq=False)
class LiveRequest:
    """sequences: of the samples that still run or wait. forked: all of its samples exist."""

    request: Request
    strategy: DecodingStrategy
    sequences: list[Sequence]
    ending: Ending
    forked: bool
    slide: tuple[int, int] | None  # (start, count) of what overflow "slide" drops from a full context

    @classmethod
    def of(cls, request: Request, context_length: int) -> LiveRequest:
        params = request.params
        ending = Ending.of(params, request.stop_ids, context_length)
        sequence = Sequence(
            request.prompt_ids,
            request_id=request.request_id,
            stop_ids=ending.stop_ids,
            salt=request.salt,
            watch=request.watch,
        )
        if request.companion_ids is not None:
            Pair(
                sequence,
                Sequence(request.companion_ids, request_id=request.request_id, salt=request.salt),
            )
        make = request.make or strategies[request.strategy]
        strategy = make(params, request.seed)
        slide = None
        if params.overflow == "slide":
            keep = params.slide_keep
            slide = keep, slide_amount(keep, params.slide_drop, context_length)
        return cls(request, strategy, [sequence], ending, forked=params.n == 1, slide=slide)

    @property
    def chooses(self) -> bool:
        """Whether bounds of the logits will do for its next choice."""
        return getattr(self.strategy, "chooses", False)

    def append(
        self,
        sequence: Sequence,
        token: int,
        logprobs: Logprobs | None,
        made_by: Pass,
        from_draft: bool,
        drafts: PassDrafts | None,
    ) -> TokenEvent:
        """One chosen token joins the sequence."""
        position = sequence.num_tokens
        longest = sequence
        if sequence.pair is None:
            sequence.append(token)
        else:
            sequence.pair.append(token)
            longest = max(sequence, sequence.pair.companion, key=lambda each: each.num_tokens)
        reason = self.ending.reason(token, sequence.num_generated, longest.num_tokens)
        dropped = self.slide if reason == "context" else None
        if dropped is not None:
            reason = None
        return TokenEvent(
            sequence.request_id,
            sequence.sample_index,
            token,
            position,
            logprobs,
            reason,
            sequence.num_rows,
            sequence.num_reused,
            token if reason == "stop" else None,
            dropped=dropped,
            made_by=made_by,
            from_draft=from_draft,
            drafts=drafts,
        )

    def drafts(self, sequence: Sequence, vocabulary_size: int) -> list[int]:
        """What the strategy proposes where the next pass begins at the last token: no more than could be used."""
        ending = self.ending
        room = (
            min(ending.context_length - sequence.num_tokens, ending.max_tokens - sequence.num_generated) - 1
        )
        if sequence.num_behind > 1 or not self.forked or room <= 0 or sequence.pair is not None:
            return []
        drafts = self.strategy.propose(sequence)[:room]
        if not all(0 <= token < vocabulary_size for token in drafts):
            raise RuntimeError(f"a strategy proposed {drafts}, which are not all in the vocabulary")
        return drafts

    def choices(self, sequence: Sequence, drafts: list[int], logits: Logits) -> list[Choice]:
        """What the strategy chooses, held to its protocol; logits [1 + drafts, vocabulary], or bounds of
        these rows."""
        if isinstance(logits, np.ndarray):
            choices = self.strategy.advance(sequence, drafts, logits)
        else:
            choices = cast(ChoosingStrategy, self.strategy).choose(sequence, drafts, logits)
        accepted = [choice.token_id for choice in choices[:-1]]
        if not choices or accepted != drafts[: len(accepted)]:
            chosen = [choice.token_id for choice in choices]
            raise RuntimeError(f"a strategy chose {chosen} where the drafts were {drafts}")
        return choices

    def told(self, sequence: Sequence, drafts: list[int], choices: list[Choice]) -> PassDrafts | None:
        """What there is to tell of the guesses of a pass."""
        if not self.strategy.proposes:
            return None
        strategy = cast(SpeculatingStrategy, self.strategy)
        telling = hasattr(strategy, "source")
        failures = tuple(strategy.take_failures().items()) if telling else ()
        revised = strategy.take_revised(sequence.sample_index) if telling else 0
        if not drafts and not failures:
            return None
        accepted = sum(c.token_id == draft for c, draft in zip(choices, drafts, strict=False))
        source = strategy.source(sequence.sample_index) if telling else ""
        return PassDrafts(source, len(drafts), accepted, revised, failures)


def failure(sequence: Sequence, error: Exception) -> TokenEvent:
    """The last event of a sample whose request an error has ended."""
    return TokenEvent(
        sequence.request_id,
        sequence.sample_index,
        token_id=None,
        position=sequence.num_tokens,
        logprobs=None,
        finish_reason="error",
        num_computed=sequence.num_rows,
        num_reused=sequence.num_reused,
        error=f"{type(error).__name__}: {error}",
    )
