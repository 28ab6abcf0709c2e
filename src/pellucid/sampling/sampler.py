"""One choice: logits -> processors -> draw -> token, with log-probabilities on request. Knows no engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np

from pellucid import _native
from pellucid.errors import PellucidError
from pellucid.sampling.base import History, Scope, StatefulProcessor, Step, samplers
from pellucid.sampling.memory import Memory, States
from pellucid.sampling.min_p import MinP
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.random import SAMPLE_STREAM
from pellucid.types import Float32, Int32, Screened

_NO_STATES: States = {}
_ODD = 0x9E3779B97F4A7C15


class NoTokenLeftError(PellucidError):
    """The constraints of a request exclude every token at some position."""


class ConstraintStep(NamedTuple):
    """What a constraint did to one choice.

    allowed_logprob: logarithm of the probability, under the distribution that it was given, of all tokens that it
    allows. Its sum over an output is how much lower the constrained sequence's log-probability is under the model
    than under the constrained distribution. wanted: the most probable token before it. forced: it left only one.
    """

    allowed_logprob: float
    wanted: int
    forced: bool


class Logprobs(NamedTuple):
    """Natural logarithms of probabilities at one step, float64 arithmetic on the float32 logits.

    raw: under the model. processed: under the distribution that the token was drawn from (with temperature 0:
    after all processors, not tempered). The alternatives are (token id, log-probability), most probable
    first.
    """

    raw: float
    processed: float
    top_raw: tuple[tuple[int, float], ...]
    top_processed: tuple[tuple[int, float], ...]
    constraint: ConstraintStep | None = None


class Choice(NamedTuple):
    token_id: int
    logprobs: Logprobs | None


class StepOf:
    """A `Step`: a history, with the key of the noise and the states of the stages."""

    __slots__ = (
        "companion_logits",
        "num_dropped",
        "num_generated",
        "num_prompt",
        "sample_index",
        "seed",
        "states",
        "stop_ids",
        "token_ids",
    )

    def __init__(self, history: History, seed: int, states: States) -> None:
        self.token_ids = history.token_ids
        self.num_prompt = history.num_prompt
        self.num_generated = history.num_generated
        self.num_dropped = history.num_dropped
        self.sample_index = history.sample_index
        self.stop_ids = history.stop_ids
        self.companion_logits = history.companion_logits
        self.seed = noise_key(seed, history)
        self.states = states


def noise_key(seed: int, history: History) -> int:
    """Positions that come again after a slide draw other noise (an odd factor: no two drops have one key)."""
    return (seed + _ODD * history.num_dropped) % 2**64 if history.num_dropped else seed


# Called after each stage that ran: its name, the logits that it was given (a copy), those that it gave.
Watcher = Callable[[str, Float32, Float32], None]


class Sampler:
    """The stages of one request in order, and its draw: a pure function of (logits, history, states).

    states: what stages with feedback (mirostat, adaptive_p) remember; this object keeps them by position.
    """

    def __init__(self, params: SamplingParams, seed: int) -> None:
        idle = params.idle_stages()
        # What cannot change the largest need not run, unless somebody asks for probabilities.
        if params.logprobs is not None:
            idle = {name for name in idle if samplers[name].keeps_argmax is False}
        self.stages = {name: stage for name, stage in params.stages().items() if name not in idle}
        self._stateful: dict[str, StatefulProcessor] = {
            name: cast(StatefulProcessor, stage)
            for name, stage in self.stages.items()
            if hasattr(stage, "initial")
        }
        self._memory = Memory(self._stateful)
        self._num_top = params.logprobs
        # The stages whose input and output are looked at after a choice.
        self._kept = set(self._stateful)
        if params.logprobs is not None and "constraint" in self.stages:
            self._kept.add("constraint")
        self.greedy = params.greedy
        self.seed = seed % 2**64
        self._parameters = params.set_of(self.stages)
        self._cut = cast(MinP | None, self.stages.get("min_p"))
        self._temperature = (
            0.0 if self.greedy else params.temperature if "temperature" in self.stages else 1.0
        )

    @property
    def scope(self) -> Scope:
        """How much of a row of logits a choice needs: the most that a stage reads; all for probabilities."""
        scopes = {stage.scope for stage in self.stages.values()}
        if self._num_top is not None or "all" in scopes:
            return "all"
        return "top" if "top" in scopes else "token"

    @property
    def stateful(self) -> bool:
        """Whether a choice depends on the choices before it, beyond their tokens."""
        return bool(self._stateful)

    @property
    def chooses(self) -> bool:
        """Whether bounds of the logits are enough to choose (types.Screened)."""
        decided = list(self.stages) == [name for name in ("temperature", "min_p") if name in self.stages]
        return decided and self._num_top is None and (self._cut is None or self._cut.min_keep == 1)

    def states(self, history: History) -> States:
        """The states with which the token at len(history.token_ids) is chosen, by stage."""
        return self._memory.before(history)

    def process(self, history: History, logits: Float32) -> Float32:
        """float32 [vocabulary] after every stage; `logits` itself is left as it is."""
        return self.run(StepOf(history, self.seed, self.states(history)), logits)

    def run(self, step: Step, logits: Float32, watcher: Watcher | None = None) -> Float32:
        """As `process`, with the states given."""
        if not self.stages:
            return logits
        processed = logits.copy()
        for name, stage in self.stages.items():
            before = processed.copy() if watcher is not None else processed
            processed = stage(step, processed)
            if watcher is not None:
                watcher(name, before, processed)
        return processed

    def draw(self, step: Step, processed: Float32) -> int:
        """The id that the processed logits and the noise give; -1 if every token is excluded."""
        if self.greedy:
            return _native.argmax(processed)
        position = len(step.token_ids)
        return _native.gumbel_argmax(processed, step.seed, step.sample_index, position, SAMPLE_STREAM)

    def choose(self, history: History, logits: Float32) -> Choice:
        """The token for position len(history.token_ids). NoTokenLeftError if the constraints exclude all;
        ValueError if a logit is NaN or +inf."""
        step = StepOf(history, self.seed, self._memory.before(history) if self._stateful else _NO_STATES)
        given: dict[str, tuple[Float32, Float32]] = {}
        processed = self.run(step, logits, self._keep(given) if self._kept else None)
        token = self.draw(step, processed)
        if token < 0:
            raise self._no_token_left(history, logits)
        if self._stateful:
            self._memory.remember(history, token, self._after(step, given, token))
        if self._num_top is None:
            return Choice(token, None)
        found = self._logprobs(token, logits, processed)
        if "constraint" in given:
            found = found._replace(constraint=constraint_step(*given["constraint"]))
        return Choice(token, found)

    def _keep(self, given: dict[str, tuple[Float32, Float32]]) -> Watcher:
        """What the stages to be looked at were given and gave: later stages may write into it."""

        def watch(name: str, before: Float32, after: Float32) -> None:
            if name in self._kept:
                given[name] = (before, after.copy())

        return watch

    def _after(self, step: Step, given: dict[str, tuple[Float32, Float32]], token: int) -> States:
        return {
            name: stage.after(step.states[name], *given[name], token)
            for name, stage in self._stateful.items()
        }

    def choose_from_bounds(self, history: History, logits: Screened) -> Choice:
        """The same token as `choose` of the exact logits; the same errors. Where `chooses`."""
        position = len(history.token_ids)
        min_p = 0.0 if self._cut is None else self._cut.min_p
        key = noise_key(self.seed, history)
        token = logits.choose(self._temperature, min_p, key, history.sample_index, position, SAMPLE_STREAM)
        return self.choose(history, logits.exact()[0]) if token is None else Choice(token, None)

    def _logprobs(self, token: int, logits: Float32, processed: Float32) -> Logprobs:
        raw, top_raw = self._of_distribution(token, logits)
        if processed is logits:
            return Logprobs(raw, raw, top_raw, top_raw)
        after, top_after = self._of_distribution(token, processed)
        return Logprobs(raw, after, top_raw, top_after)

    def _of_distribution(self, token: int, logits: Float32) -> tuple[float, tuple[tuple[int, float], ...]]:
        normalizer = _native.log_normalizer(logits)
        ids: Int32 = np.empty(self._num_top or 0, np.int32)
        _native.top_k(logits, ids)
        top = logits[ids].astype(np.float64) - normalizer
        return float(logits[token]) - normalizer, tuple(zip(ids.tolist(), top.tolist(), strict=True))

    def _no_token_left(self, history: History, logits: Float32) -> NoTokenLeftError:
        where = f"no token is left at position {len(history.token_ids)}: "
        if np.max(logits) == -np.inf:
            return NoTokenLeftError(where + "the model gave every token the logit -inf; check the model file")
        given = ", ".join(self._parameters)
        return NoTokenLeftError(where + f"{given} exclude every token between them; loosen one")


def constraint_step(before: Float32, after: Float32) -> ConstraintStep:
    """From the logits that the constraint was given, and those that it gave."""
    allowed = _native.log_normalizer(after) - _native.log_normalizer(before)
    return ConstraintStep(
        min(allowed, 0.0), _native.argmax(before), int(np.count_nonzero(after > -np.inf)) == 1
    )
