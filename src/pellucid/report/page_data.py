"""What a report page is made from: plain data, gathered elsewhere. Knows neither models nor HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pellucid.sampling.record import ChoiceRecord
    from pellucid.settings import Setting

PROMPT = "prompt"  # the kind of a token that was given before the generation began


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that could have stood here. logprob: under the model; processed: after all stages of the choice (-inf:
    excluded, None: there was no choice)."""

    token_id: int
    text: str
    logprob: float
    processed: float | None = None


@dataclass(frozen=True, slots=True)
class LensCell:
    """What one layer's residual stream would predict, read through the final norm and the output projection.

    rank (0: first) and logprob: of the token that follows; top, top_logprob: the most probable token instead."""

    rank: int
    logprob: float
    top: str
    top_logprob: float


@dataclass(frozen=True, slots=True)
class TokenView:
    """One token of a text and the distribution that it came from.

    kind: "prompt", or as of `StepRecord`: "drawn", "forced", "given", "kept". logprob, rank, entropy (nats): under the
    model; None where its distribution was not looked at (the first token has none). top: the most probable tokens,
    best first. choice: of a drawn token. layers: the lens, from the first layer to the last. seconds: of its step.
    note: one sentence on the choice. flags: what is odd about it, in a few words each.
    """

    position: int
    token_id: int
    text: str
    kind: str
    logprob: float | None = None
    rank: int | None = None
    entropy: float | None = None
    top: tuple[Candidate, ...] = ()
    choice: ChoiceRecord | None = None
    runner_up: str | None = None  # text of choice.runner_up
    stage_tops: tuple[str, ...] = ()  # text of each stage's top, as many as choice.stages
    layers: tuple[LensCell, ...] = ()
    seconds: float | None = None
    note: str = ""
    flags: tuple[str, ...] = ()
    shown: str = ""  # what stands in the text in place of `text`: see `token_view.readable`


@dataclass(frozen=True, slots=True)
class BranchView:
    """One line of tokens. parent: index of an earlier branch that has its first `forked_at` tokens, None of a root;
    tokens: those after them. sibling: it is a further sample of the parent's prompt, not a fork of its text. ended: why
    it ended, "" while it goes on."""

    name: str
    tokens: tuple[TokenView, ...]
    parent: int | None = None
    forked_at: int = 0
    sibling: bool = False
    ended: str = ""


@dataclass(frozen=True)
class Report:
    """A page. facts: (name, value) pairs of its head. timings: (what, seconds). layer_names: of the lens, the first
    layer first, or empty. notes: what a reader must know, such as what was left out and how to have it."""

    title: str
    branches: tuple[BranchView, ...]
    facts: tuple[tuple[str, str], ...] = ()
    settings: tuple[Setting, ...] = ()
    timings: tuple[tuple[str, float], ...] = ()
    layer_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
