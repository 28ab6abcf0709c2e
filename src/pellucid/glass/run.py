"""A run: what was generated and everything that decided it, as a run file holds it. Plain data; knows no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pellucid.errors import PellucidError, RunFileError
from pellucid.sampling.params import SamplingParams
from pellucid.settings import Setting, Settings

DRAWN, FORCED, GIVEN, KEPT, PROMPT = KINDS = ("drawn", "forced", "given", "kept", "prompt")
"""How a token came to its place. drawn: chosen by the parameters. forced: by the caller, in place of the draw. given:
appended. kept: it stood there when something before it was edited. prompt: appended as a further part of the prompt."""


@dataclass(frozen=True, slots=True)
class RunToken:
    """One token after the prompt.

    plan: index into `RunBranch.plans`. from_draft: it was guessed before its logits were there. digest: of the
    hidden state from which its logits came (`glass.digests`), None where it was not recorded; layers: of each
    layer's output there. sketch: a projection of the same hidden state, from which a gap can be estimated.
    pass_number, num_rows: the
    forward pass, and its rows of all sequences. num_computed, num_reused: rows computed, and positions found without
    that, for this branch since its last token (None: nobody chose this one). Seconds: schedule, forward and choose are
    the whole pass's, text is the token's own. altered: the logits that the caller had changed, token id -> value;
    None: none.
    """

    position: int
    token_id: int
    kind: str = DRAWN
    plan: int = 0
    from_draft: bool = False
    digest: int | None = None
    sketch: float | None = None
    layers: tuple[int, ...] | None = None
    pass_number: int = 0
    num_rows: int = 0
    num_computed: int | None = None
    num_reused: int | None = None
    schedule: float = 0.0
    forward: float = 0.0
    choose: float = 0.0
    text: float = 0.0
    altered: Mapping[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How tokens are chosen: parameters in plain types, the seed that acts, the ids that end the output, and the
    settings with their origins."""

    params: Mapping[str, Any]
    seed: int
    stop_ids: tuple[int, ...]
    settings: Settings


@dataclass(frozen=True, slots=True)
class RunDrop:
    """What overflow "slide" took out of the context: `count` tokens at `start`, once `after` tokens of the branch
    stood."""

    after: int
    start: int
    count: int


@dataclass
class RunBranch:
    """One sample of a request, or a Generation or a fork of it.

    prompt_ids: what was run, without what overflow "slide" took out of a prompt that was too long. parent,
    forked_at: the branch that it came from, and how many tokens (the prompt counted) the two had in common; its
    `prompt_ids` and `tokens` begin with those, whose kinds and records are the parent's. request: counts the
    requests of the file. finish_reason: None: still running when the file ends, or a Generation that may go on.
    undone: tokens that a rewind took back. timings: seconds, as of a result. companion_ids: the prompt of guidance's
    second sequence. interventions: as `glass/intervene.py` writes them.
    """

    index: int
    request: int
    prompt: str | None
    prompt_ids: list[int]
    plans: list[Plan]
    strategy: str = "sample"
    sample_index: int = 0
    parent: int | None = None
    forked_at: int | None = None
    tokens: list[RunToken] = field(default_factory=list)
    drops: list[RunDrop] = field(default_factory=list)
    finish_reason: str | None = None
    stop_match: str | int | None = None
    ended: bool = False
    undone: int = 0
    timings: dict[str, Any] = field(default_factory=dict)
    interventions: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    cache_salt: str | None = None
    companion_ids: list[int] | None = None

    @property
    def output_ids(self) -> list[int]:
        """Every token after the (first) prompt."""
        return [token.token_id for token in self.tokens]

    @property
    def settings(self) -> Settings:
        """Those at the beginning, with their origins."""
        return self.plans[0].settings

    @property
    def seed(self) -> int:
        return self.plans[0].seed

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.plans[0].stop_ids

    @property
    def params(self) -> SamplingParams:
        """Those at the beginning. RunFileError: they hold what no file can (a Python function)."""
        return self.params_of(0)

    @property
    def seeded_params(self) -> SamplingParams:
        """`params` with the seed that acts. As a parameter it is signed: seeds count modulo 2^64."""
        return self.params.replace(seed=self.seed - 2**64 if self.seed >= 2**63 else self.seed)

    def params_of(self, plan: int) -> SamplingParams:
        return self._params[plan]

    @cached_property
    def _params(self) -> list[SamplingParams]:
        try:
            return [SamplingParams(**plan.params) for plan in self.plans]
        except (PellucidError, TypeError, ValueError) as error:
            raise RunFileError(
                f"branch {self.index}: its parameters cannot be built again: {error}"
            ) from None


@dataclass
class Run:
    """A run file, read. model: fingerprint of the model; load: the settings it was opened with. build: the version of
    pellucid and what computed. layers: how many layers have digests. num_cut_bytes: behind the last whole frame,
    where a kill has cut the file."""

    path: str
    version: str
    created: str
    build: dict[str, Any]
    model: dict[str, Any]
    model_name: str
    load: Settings
    digests: str
    num_layers: int
    branches: list[RunBranch] = field(default_factory=list)
    num_cut_bytes: int = 0
    num_bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether every branch has ended and nothing of the file is cut off."""
        return (
            bool(self.branches) and not self.num_cut_bytes and all(branch.ended for branch in self.branches)
        )

    @property
    def num_tokens(self) -> int:
        """Tokens after the prompts that the file holds, those shared with a parent once."""
        return sum(
            len(b.tokens) - max(0, (b.forked_at or 0) - len(b.prompt_ids))
            if b.parent is not None
            else len(b.tokens)
            for b in self.branches
        )

    def branch(self, index: int) -> RunBranch:
        if not 0 <= index < len(self.branches):
            raise RunFileError(
                f"{self.path}: expected a branch from 0 to {len(self.branches) - 1}, got {index}"
            )
        return self.branches[index]

    def __repr__(self) -> str:
        state = "whole" if self.complete else "not ended"
        return f"<Run {self.path}: {len(self.branches)} branches, {self.num_tokens} tokens, {state}>"


def settings_from(data: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The inverse of `Settings.to_dict`."""
    return Settings(
        Setting(name, each.get("value"), str(each.get("origin", "")), str(each.get("note", "")))
        for name, each in data.items()
    )
