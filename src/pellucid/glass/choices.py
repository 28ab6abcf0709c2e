"""The choices of a run, made again from logits that are computed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pellucid.glass.noise import numeric_noise
from pellucid.glass.record import Record, Seconds, manifest_of, mask_of
from pellucid.glass.rows import RunHistory, altered, walk
from pellucid.glass.run import DRAWN, RunBranch, RunToken
from pellucid.sampling.memory import States
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Sampler
from pellucid.types import Float32

if TYPE_CHECKING:
    from pellucid.llm import LLM

SAMPLED = ("sample", "constrained", "speculative", "jacobi")
"""Strategies whose every token is what the sampler makes of one row of the model's logits."""


class Choices:
    """The samplers of a branch, one for each of its plans; they remember what stages with feedback remember.

    Errors: RunFileError (parameters that no file can hold), ConstraintError."""

    def __init__(self, llm: LLM, branch: RunBranch) -> None:
        self.params: list[SamplingParams] = []
        self._samplers: list[Sampler] = []
        for index, plan in enumerate(branch.plans):
            params = llm._bound(branch.params_of(index))
            self.params.append(params)
            self._samplers.append(Sampler(params.replace(logprobs=None), plan.seed))

    @property
    def stateful(self) -> bool:
        """Whether a choice depends on the choices before it, beyond their tokens."""
        return any(sampler.stateful for sampler in self._samplers)

    def states(self, token: RunToken, history: RunHistory) -> States:
        return self._samplers[token.plan].states(history)

    def choose(self, token: RunToken, history: RunHistory, row: Float32) -> int:
        """What the parameters choose there. row: as the model gave it."""
        return self._samplers[token.plan].choose(history, altered(token, row)).token_id


def records(llm: LLM, branch: RunBranch, start: int = 0, stop: int | None = None) -> list[Record]:
    """The records of the tokens [start, stop) of a branch. Each keeps its logits: 4 bytes a token of the vocabulary.
    Errors: those of `walk` and `Choices`."""
    made: list[Record] = []

    def keep(record: Record) -> None:
        logits = record.logits.copy()
        logits.flags.writeable = False
        same = record.effective_logits is record.logits
        made.append(
            replace(record, logits=logits, effective_logits=logits if same else record.effective_logits)
        )

    each_record(llm, branch, keep, start, stop)
    return made


def each_record(
    llm: LLM, branch: RunBranch, see: Callable[[Record], None], start: int = 0, stop: int | None = None
) -> None:
    """Calls see for each of them, in order, as its logits come: they are valid during the call, which must not use the
    LLM. So all are seen in one walk, however many. Errors: those of `walk` and `Choices`, and what `see` raises."""
    choices = Choices(llm, branch)
    stop = len(branch.tokens) if stop is None else stop
    mask, noise = mask_of(llm._need().model.layers), numeric_noise(llm.info.formats)

    def take(index: int, token: RunToken, history: RunHistory, row: Float32) -> None:
        states = choices.states(token, history)
        if choices.stateful and token.kind == DRAWN:
            choices.choose(token, history, row)
        if index < start:
            return
        see(
            Record(
                position=token.position,
                token_id=token.token_id,
                kind=token.kind,
                history=history,
                logits=row,
                params=choices.params[token.plan],
                seed=branch.plans[token.plan].seed,
                states=states,
                manifest=manifest_of(
                    history, mask, token.num_computed, token.num_reused, token.pass_number, token.num_rows
                ),
                seconds=Seconds(
                    float(branch.timings.get("tokenize") or 0) if index == 0 else 0.0,
                    token.schedule,
                    token.forward,
                    token.choose,
                    token.text,
                ),
                noise_margin=noise,
                text_of=llm.tokenizer.token_text,
                effective_logits=altered(token, row),
                from_draft=token.from_draft,
            )
        )

    walk(llm, branch, take, start=0 if choices.stateful else start, stop=stop)
