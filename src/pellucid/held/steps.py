"""One step of a generation, looked at before its token is chosen; and the record that stays of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.glass.run import DRAWN
from pellucid.prompts import check_count
from pellucid.sampling.distribution import Distribution
from pellucid.sampling.values import as_int

if TYPE_CHECKING:
    from pellucid.engine.held import Held
    from pellucid.glass.why import Why
    from pellucid.held.generation import Generation
    from pellucid.held.step_why import Origin
    from pellucid.sampling.params import SamplingParams
    from pellucid.serving.driver import Driver
    from pellucid.types import Float32


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What became of one position. kind: "drawn", "forced", "given" or "kept".

    logprob: natural logarithm of the probability under the model's own distribution, and processed_logprob under
    the one that the parameters made of it; None where nobody asked (`Generation.logprobs` computes all). seed,
    sample_index: with the position, the key of the draw. altered: the caller had changed the logits. from_draft (not
    kept in files): the token had been guessed, and its logits came with those of the token before.
    """

    position: int
    token_id: int
    text: str
    kind: str
    logprob: float | None = None
    processed_logprob: float | None = None
    seed: int | None = None
    sample_index: int = 0
    altered: bool = False
    from_draft: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that could be chosen: its logit, its probability under the model (and the log of it), and its
    probability after the parameters' processing (0: excluded)."""

    token_id: int
    text: str
    logit: float
    logprob: float
    probability: float
    processed_probability: float


class Step:
    """The distribution at one position of a generation, and the choice.

    position: absolute, of the token to be chosen. logits: float32 [vocabulary], the model's own, read-only.
    token_id, text, record, delta: None until the token is chosen; delta is the text that it made certain ("" while
    a character is unfinished or a stop string may be beginning). Numbers are computed when they are asked for.
    """

    def __init__(self, generation: Generation, position: int, logits: Float32) -> None:
        self._generation = generation
        self._edition = generation.edition
        self.position = position
        self.logits = logits
        self.token_id: int | None = None
        self.delta: str | None = None
        self.finish_reason: str | None = None
        self.record: StepRecord | None = None
        self._changed: Float32 | None = None
        self._origin: Origin | None = None  # of a step that was taken

    # --- the distribution -----------------------------------------------------------------------------
    @cached_property
    def distribution(self) -> Distribution:
        """The model's own."""
        return Distribution(self.logits)

    @property
    def processed(self) -> Distribution:
        """What the token is drawn from: the (changed) logits after every processor of the parameters. With
        temperature 0 they are not tempered, and the largest is taken."""
        if self._processed is None:
            self._still_open("look at the processed distribution")
            self._processed = Distribution(self._generation.process(self.effective_logits))
        return self._processed

    _processed: Distribution | None = None

    @property
    def origin(self) -> Origin:
        """What the choice is a function of, besides the logits."""
        if self._origin is not None:
            return self._origin
        self._still_open("say why")
        return self._generation.origin()

    def why(self) -> Why:
        """Why this token: a sentence, a table (`print(step.why())`), and the record of the step. Of a step that is
        open: what would be chosen."""
        from pellucid.glass.why import Why
        from pellucid.held.step_why import record_of_step

        return Why(record_of_step(self))

    def make_record(self, token: int, kind: str, params: SamplingParams, sample_index: int) -> StepRecord:
        """Of a step that is being taken. Log-probabilities: where the parameters ask, or somebody looked."""
        self._origin = self.origin
        wanted = params.logprobs is not None
        looked = "distribution" in self.__dict__
        return StepRecord(
            self.position,
            token,
            self._generation.token_text(token),
            kind,
            self.distribution.logprob(token) if wanted or looked else None,
            self.processed.logprob(token) if wanted or self._processed is not None else None,
            params.seed if kind == DRAWN else None,
            sample_index,
            self._changed is not None,
        )

    @property
    def effective_logits(self) -> Float32:
        """The logits that the choice starts from: `logits`, or what `set_logits` and `bias` made of them."""
        return self.logits if self._changed is None else self._changed

    @property
    def entropy(self) -> float:
        """Of the model's distribution, in nats."""
        return self.distribution.entropy

    def probability(self, token: int | str) -> float:
        """Of a token, given as id or as its text, under the model."""
        return self.distribution.probability(self._generation.token_of(token))

    def logprob(self, token: int | str) -> float:
        return self.distribution.logprob(self._generation.token_of(token))

    def top(self, k: int = 10, *, processed: bool = False) -> list[Candidate]:
        """The k most probable tokens; processed: by the probability that they are drawn with."""
        count = check_count("top", k, 1)
        raw, after = self.distribution, self.processed
        return [
            Candidate(
                token,
                self._generation.token_text(token),
                float(self.logits[token]),
                raw.logprob(token),
                raw.probability(token),
                after.probability(token),
            )
            for token in (after if processed else raw).top(count)
        ]

    # --- change and choose ----------------------------------------------------------------------------
    def set_logits(self, logits: Any) -> None:
        """Other logits for this choice: [vocabulary] floats, no NaN or +inf; -inf excludes a token."""
        self._still_open("change the logits")
        try:
            array = np.array(logits, np.float32)
        except (TypeError, ValueError):
            raise UsageError(f"logits: expected an array of floats, got {type(logits).__name__}") from None
        if array.shape != self.logits.shape:
            raise UsageError(f"logits: expected shape {self.logits.shape}, got {array.shape}")
        if np.isnan(array).any() or np.isposinf(array).any():
            raise UsageError("logits: expected numbers, got NaN or +inf among them")
        self._changed, self._processed = array, None

    def bias(self, biases: Mapping[int | str, float]) -> None:
        """Add to the logits of some tokens, given as ids or as their texts; float("-inf") excludes one."""
        changed = self.effective_logits.copy()
        if not isinstance(biases, Mapping):
            raise UsageError(f"bias: expected a dict of tokens and numbers, got {type(biases).__name__}")
        for token, bias in biases.items():
            if isinstance(bias, (bool, str, bytes)) or not hasattr(bias, "__float__"):
                raise UsageError(f"bias of {token!r:.40}: expected a number, got {bias!r:.40}")
            changed[self._generation.token_of(token)] += float(bias)
        self.set_logits(changed)

    def choose(self) -> Step:
        """The choice that the parameters make: the token that `generate` would have here, if nothing was changed."""
        self._still_open("choose")
        self._generation.take_choice(self)
        return self

    def force(self, token: int | str) -> Step:
        """This token, given as id or as its text, in place of the draw."""
        self._still_open("force a token")
        self._generation.take_forced(self, self._generation.token_of(token))
        return self

    @property
    def text(self) -> str | None:
        """What the chosen token adds to a text; bytes that are no whole character as \\xNN."""
        return None if self.token_id is None else self._generation.token_text(self.token_id)

    def _still_open(self, what: str) -> None:
        if self.token_id is not None or self._generation.edition != self._edition:
            raise UsageError(
                f"cannot {what}: the generation has left this step (position {self.position}); "
                "rewind to it, and peek again"
            )

    def _repr_html_(self) -> str:
        from pellucid.report.notebook import bars, note

        named = self._generation.token_text
        top = [(named(token), self.distribution.logprob(token)) for token in self.distribution.top(10)]
        told = f"position {self.position}: entropy {self.entropy:.3f} nats"
        taken = (
            ""
            if self.token_id is None
            else f"; {named(self.token_id)!r} was {self.record.kind if self.record else ''}"
        )
        return f"<div>{note(told + taken)}{bars(top)}</div>"

    def __repr__(self) -> str:
        if self.token_id is None:
            return f"<Step at {self.position}: not chosen>"
        return f"<Step at {self.position}: {self.text!r}>"


def logprobs_from(driver: Driver, held: Held, border: int) -> list[float]:
    """The log-probability of each token from `border` on under the model, computed in one go on a fork."""
    if border == len(held):
        return []
    found: list[float] = []
    fork = held.fork()
    try:
        fork.first_logit = border - 1
        ids = held.token_ids

        def on_rows(_: Held, position: int, rows: Float32) -> None:
            for i, row in enumerate(rows, position + 1):
                if i < len(ids):
                    found.append(Distribution(row).logprob(int(ids[i])))

        driver.evaluate([fork], on_rows)
    finally:
        fork.close()
    return found


Until = Callable[[Step], bool] | str | int | None


def condition(until: Until) -> Callable[[Step, list[str]], bool]:
    """Of (the step just taken, the texts since the beginning): whether to stop. UsageError: no such condition."""
    count = as_int(until)
    if until is None or (count is not None and count >= 0):
        return lambda step, pieces: False
    if isinstance(until, str) and until:
        return lambda step, pieces: until in "".join(pieces)
    if callable(until):
        return lambda step, pieces: until(step)
    raise UsageError(f"run: expected a number of tokens, a text or a function of a Step, got {until!r:.40}")
