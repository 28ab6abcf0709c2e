"""What other settings would have made of a run: the choices made again over the same logits, without generating.

Up to the first other token the logits are those of the run, so where the text would first have changed is exact. What
would have followed is another text; only generating tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pellucid.engine.ending import Ending
from pellucid.errors import UsageError
from pellucid.glass.choices import SAMPLED, Choices
from pellucid.glass.noise import numeric_noise
from pellucid.glass.reach import check_forced, notes
from pellucid.glass.record import Record, Seconds, manifest_of, mask_of
from pellucid.glass.rows import Histories, RunHistory, altered, check_model, segments, walk
from pellucid.glass.run import DRAWN, Run, RunBranch, RunToken
from pellucid.glass.why import Why
from pellucid.glass.words import listed
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import NoTokenLeftError, Sampler
from pellucid.text.continuation import ContinuationText
from pellucid.types import Float32

if TYPE_CHECKING:
    from pellucid.llm import LLM


@dataclass(frozen=True)
class Turn:
    """The first change of a branch. index: the step; text_before: of the tokens up to it. was, would_be: token ids;
    None: the text ended there, or would have. reason: why it would end or go on, "" where another token is chosen.
    then, now: the records of both choices."""

    index: int
    position: int
    was: int | None
    would_be: int | None
    reason: str = ""
    text_before: str = ""
    then: Why | None = field(default=None, repr=False)
    now: Why | None = field(default=None, repr=False)


@dataclass
class BranchWhatIf:
    """turn: None: the same text. others: steps after it at which the other settings would have chosen otherwise,
    too, had the text been what it was; None: they feed back, so that it cannot be said. num_tokens: looked at."""

    index: int
    num_tokens: int
    turn: Turn | None = None
    others: list[int] | None = None
    error: str | None = None


@dataclass(repr=False)
class WhatIf:
    """Of each branch of a run. changed: what is set otherwise, name -> (then, now). notes: forced tokens (`force_at`)
    that no choice of a branch came to."""

    run: Run
    changed: dict[str, tuple[Any, Any]]
    branches: list[BranchWhatIf] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return not any(branch.turn or branch.error for branch in self.branches)

    def lines(self, text_of: Any) -> list[str]:
        """For a terminal."""
        lines = []
        for branch in self.branches:
            head = f"branch {branch.index}: " if len(self.branches) > 1 else ""
            turn = branch.turn
            if branch.error is not None:
                lines.append(f"{head}{branch.error}")
            if turn is None:
                lines += (
                    [f"{head}the same text: {branch.num_tokens} choices made again"]
                    if branch.error is None
                    else []
                )
                continue
            if turn.was is None and turn.would_be is None:
                lines.append(f"{head}the same {branch.num_tokens} tokens; {turn.reason}")
                continue
            was = "the end" if turn.was is None else repr(text_of(turn.was))
            now = "the end" if turn.would_be is None else repr(text_of(turn.would_be))
            why = f" ({turn.reason})" if turn.reason else ""
            lines.append(f"{head}step {turn.index}, position {turn.position}: {now} in place of {was}{why}")
            lines.append(f"  after {turn.text_before[-60:]!r}")
            lines += [
                f"  {word}: {each.sentence}"
                for word, each in (("then", turn.then), ("now", turn.now))
                if each
            ]
            if branch.others is not None and turn.would_be is not None:
                lines.append(
                    f"  {len(branch.others)} later choices of {branch.num_tokens} would have differed on the same text"
                )
        return lines + self.notes

    def __repr__(self) -> str:
        others = sum(1 for branch in self.branches if branch.turn or branch.error)
        found = "the same text" if self.same else f"{others} of {len(self.branches)} branches not the same"
        changes = f"another {listed(list(self.changed))}" if self.changed else "the same settings"
        return f"<WhatIf of {self.run.path} with {changes}: {found}>"

    def to_dict(self) -> dict[str, Any]:
        return {
            "same": self.same,
            "changed": {name: list(pair) for name, pair in self.changed.items()},
            "branches": [
                {
                    "index": branch.index,
                    "num_tokens": branch.num_tokens,
                    "error": branch.error,
                    "others": branch.others,
                    "turn": None if branch.turn is None else _turn(branch.turn),
                }
                for branch in self.branches
            ],
            "notes": self.notes,
        }


def _turn(turn: Turn) -> dict[str, Any]:
    plain = {
        name: getattr(turn, name)
        for name in ("index", "position", "was", "would_be", "reason", "text_before")
    }
    return plain | {name: each and each.to_dict() for name, each in (("then", turn.then), ("now", turn.now))}


def what_if(llm: LLM, run: Run, params: SamplingParams | None = None, **overrides: Any) -> WhatIf:
    """The choices of a run with other parameters: `params` (None: the run's) with these fields replaced.

    Errors: UsageError (nothing is changed; a field that cannot be changed after the fact; a token forced at a step
    that the run does not have), RunFileError,
    ConstraintError."""
    check_model(run, llm)
    if "n" in overrides or (
        params is not None and params.n != 1 and any(b.params.n != params.n for b in run.branches)
    ):
        raise UsageError("what-if: n cannot be changed; there are as many samples as the run has")
    if params is None and not overrides:
        raise UsageError(
            "what-if: nothing is set otherwise; give a sampling parameter, such as --top-p 0.8 or --seed 7"
        )
    changed: dict[str, tuple[Any, Any]] = {}
    result = WhatIf(run, changed)
    _check_forced(run, params, overrides)
    for branch in run.branches:
        before = branch.seeded_params
        after = llm._bound((params or before).replace(**overrides))
        if params is not None and params.seed is None and "seed" not in overrides:
            after = after.replace(seed=before.seed)
        then, now = before.to_dict(), after.to_dict()
        changed.update({name: (then[name], now[name]) for name in now if then[name] != now[name]})
        result.branches.append(_Branch(llm, branch, after).look())
        if after.force_at and result.branches[-1].error is None:
            head = f"branch {branch.index}: " if len(run.branches) > 1 else ""
            result.notes += [head + line for line in _unforced(branch, after)]
    return result


def _check_forced(run: Run, params: SamplingParams | None, overrides: Mapping[str, Any]) -> None:
    """UsageError: a token that the run did not force is forced at a step that no branch has."""
    if params is None and "force_at" not in overrides:
        return
    for branch in run.branches[:1]:  # they differ in their seeds alone
        before = branch.seeded_params
        after = (params or before).replace(**overrides).force_at
        new = [pair for pair in after if pair not in before.force_at]
        if new:
            count = max((step + 1 for each in run.branches for step in _steps(each)), default=0)
            check_forced(new, count, "give a step that the run has")


def _steps(branch: RunBranch) -> set[int]:
    """The steps, as `force_at` counts them, of the choices that were made: not those of tokens that a caller gave."""
    return {
        histories.at(index).num_generated
        for segment in segments(branch)
        for histories in [Histories(branch, segment)]
        for index in range(segment.first, segment.last)
        if branch.tokens[index].kind == DRAWN
    }


def _unforced(branch: RunBranch, params: SamplingParams) -> list[str]:
    """Forced tokens of which the choices of a run know nothing: it ended before them, or somebody gave that token."""
    chosen = _steps(branch)
    count = max(chosen, default=-1) + 1
    given = [(step, token) for step, token in params.force_at if step < count and step not in chosen]
    return notes((), params.force_at, 0, 0, count) + [
        f"not in effect: token {token} is forced at step {step}, whose token the caller gave"
        for step, token in given
    ]


class _Branch:
    def __init__(self, llm: LLM, branch: RunBranch, params: SamplingParams) -> None:
        self._llm, self._branch, self._params = llm, branch, params
        self._then = Choices(llm, branch)
        seed = branch.seed if params.seed is None else params.seed
        self._sampler, self._seed = Sampler(params.replace(logprobs=None), seed), seed
        self._stops = Ending.of(params, llm._need().eos_ids, llm.context_length)
        self._text = ContinuationText(llm.tokenizer, params.stop)
        self._pieces: list[str] = []
        self._result = BranchWhatIf(branch.index, len(branch.tokens))
        self._others: list[int] = []

    def look(self) -> BranchWhatIf:
        branch = self._branch
        if branch.strategy not in SAMPLED:
            self._result.error = (
                f"the choices of '{branch.strategy}' are not made from one row of logits alone"
            )
            return self._result
        walk(self._llm, branch, self._take)
        if self._result.turn is None and self._result.error is None and branch.tokens:
            self._after_the_end()
        feeds_back = self._sampler.stateful
        self._result.others = None if feeds_back or self._result.turn is None else self._others
        return self._result

    def _take(self, index: int, token: RunToken, history: RunHistory, row: Float32) -> None:
        if self._result.error is not None:
            return
        states = self._then.states(token, history)
        if self._then.stateful and token.kind == DRAWN:
            self._then.choose(token, history, row)
        turned = self._result.turn is not None
        if token.kind != DRAWN or (turned and self._sampler.stateful):
            self._follow(index, token, turned)
            return
        asked = replace(history, stop_ids=self._stops.stop_ids)
        own = self._sampler.states(asked)
        try:
            chosen = self._sampler.choose(asked, altered(token, row)).token_id
        except NoTokenLeftError as error:
            if not turned:
                self._result.error = str(error)
            return
        if chosen == token.token_id:
            self._follow(index, token, turned)
        elif turned:
            self._others.append(index)
        else:
            logits = row.copy()
            then = self._why(token, history, logits, states, self._then.params[token.plan], token.token_id)
            now = self._why(token, asked, logits, own, self._params, chosen)
            self._turn(index, token.position, token.token_id, chosen, "", then, now)

    def _follow(self, index: int, token: RunToken, turned: bool) -> None:
        """The same token: does the text end with it, where it went on?"""
        if turned:
            return
        reason = self._stops.reason(token.token_id, index + 1, token.position + 1)
        if reason not in ("eos", "stop"):
            self._pieces.append(self._text.push(token.token_id))
        if self._text.stop_string is not None:
            reason = "stop"
        last = index + 1 == len(self._branch.tokens)
        if reason is not None and not last:
            self._turn(index + 1, token.position + 1, self._branch.tokens[index + 1].token_id, None, reason)

    def _after_the_end(self) -> None:
        """The same tokens to the end: would it have gone on?"""
        branch = self._branch
        last, was = branch.tokens[-1], branch.finish_reason
        reason = self._stops.reason(last.token_id, len(branch.tokens), last.position + 1)
        if was in ("eos", "stop", "length") and reason is None and self._text.stop_string is None:
            self._turn(
                len(branch.tokens),
                last.position + 1,
                None,
                None,
                f"it ended by {was}, and would have gone on",
            )

    def _turn(self, index: int, position: int, was: int | None, would_be: int | None, reason: str,
              then: Why | None = None, now: Why | None = None) -> None:  # fmt: skip
        self._result.turn = Turn(index, position, was, would_be, reason, "".join(self._pieces), then, now)

    def _why(
        self,
        token: RunToken,
        history: RunHistory,
        logits: Float32,
        states: Any,
        params: SamplingParams,
        chosen: int,
    ) -> Why:
        llm = self._llm
        return Why(
            Record(
                position=token.position,
                token_id=chosen,
                kind=DRAWN,
                history=history,
                logits=logits,
                params=params,
                seed=self._seed if params is self._params else self._branch.plans[token.plan].seed,
                states=states,
                manifest=manifest_of(history, mask_of(llm._need().model.layers)),
                seconds=Seconds(),
                noise_margin=numeric_noise(llm.info.formats),
                text_of=llm.tokenizer.token_text,
                effective_logits=altered(token, logits),
            )
        )
