"""What goes into the engine and what comes out of it. Below this border there is no text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np

from pellucid.decoding.base import DecodingStrategy
from pellucid.errors import UsageError
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.sampler import Logprobs
from pellucid.sampling.seed import fresh_seed
from pellucid.types import Int32, Watch

StrategyOf = Callable[[SamplingParams, int], DecodingStrategy]


def as_token_ids(ids: Iterable[int] | Int32) -> Int32:
    """A new int32 array of token ids. UsageError if they are not integers that fit, or none."""
    array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
    if array.ndim != 1 or len(array) == 0:
        raise UsageError(
            f"expected a list of at least one token id, got shape {array.shape}; give e.g. the BOS token"
        )
    if array.dtype.kind not in "iu":
        raise UsageError(f"expected token ids (integers), got an array of {array.dtype}")
    if array.min() < 0 or array.max() >= 2**31:
        raise UsageError(f"token ids must be in 0 to 2^31 - 1, got {array.min()} to {array.max()}")
    return array.astype(np.int32)


class Request:
    """One prompt and how it is to be continued; `params.n` samples. Not to be changed.

    prompt_ids: int32 [tokens], at least one. stop_ids: the model's end-of-text tokens. seed: of params, or,
    where that is None, a fresh one (below 2^53, so that it survives JSON): read it here to repeat the text.
    salt: cached prefixes are shared with requests of the same salt only. strategy: the registered name of one; make:
    what makes it in place of the registered class.
    companion_ids: int32, the prompt of a companion sequence (engine/pair.py); None: there is none. watch: of its first
    sample; the others get forks of it.
    """

    __slots__ = (
        "companion_ids",
        "make",
        "params",
        "prompt_ids",
        "request_id",
        "salt",
        "seed",
        "stop_ids",
        "strategy",
        "watch",
    )

    def __init__(
        self,
        request_id: Hashable,
        prompt_ids: Iterable[int] | Int32,
        params: SamplingParams | None = None,
        stop_ids: Iterable[int] = (),
        strategy: str = "sample",
        salt: Hashable = None,
        companion_ids: Iterable[int] | Int32 | None = None,
        watch: Watch | None = None,
        make: StrategyOf | None = None,
    ) -> None:
        self.salt = salt
        self.watch = watch
        self.companion_ids = None if companion_ids is None else as_token_ids(companion_ids)
        self.request_id = request_id
        self.prompt_ids = as_token_ids(prompt_ids)
        self.params = params if params is not None else SamplingParams()
        self.stop_ids = frozenset(stop_ids)
        self.strategy = strategy
        self.make = make
        self.seed: int = fresh_seed() if self.params.seed is None else self.params.seed


class Pass:
    """One forward pass, shared by all whose tokens it made. number: from 1. Seconds: `schedule` (drafts proposed,
    rows and blocks given), `forward` (the model), `choose` (all its choices together); written once the pass is
    over."""

    __slots__ = ("choose", "forward", "num_rows", "num_sequences", "number", "schedule")

    def __init__(self, number: int, num_rows: int, num_sequences: int) -> None:
        self.number, self.num_rows, self.num_sequences = number, num_rows, num_sequences
        self.schedule = self.forward = self.choose = 0.0


class PassDrafts(NamedTuple):
    """What was guessed for one pass of one sample. drafted: guesses that were checked; accepted: those that are tokens
    of the sample now; revised: guesses of a Jacobi block that the pass has changed. source: who guessed. failures: of
    drafters that are not asked any more, by their names."""

    source: str
    drafted: int
    accepted: int
    revised: int = 0
    failures: tuple[tuple[str, str], ...] = ()


class TokenEvent(NamedTuple):
    """One token, or the end of a sample without one (then token_id is None).

    position: absolute position of the token in its sequence. num_computed: rows that the model has computed
    for this sample so far (recomputation after a preemption included). num_reused: positions taken from the
    prefix cache, or from the sample that it was forked from. Each sample has exactly one event with a
    finish_reason, its last, unless it is ended from outside by `Engine.finish` or `Engine.abort`.
    dropped: (start, count) of the tokens that overflow "slide" took out once this token had filled the context.

    finish_reason: "eos" (an end-of-text token), "stop" (`stop` tells the stop_token_ids entry), "length"
    (max_tokens), "context" (the context is full), "error" (`error` tells what; other requests go on).
    made_by: the pass whose logits gave the token. from_draft: the token had been guessed before its logits were there.
    drafts: on the first token of a pass in which guesses were checked (or a drafter failed).
    """

    request_id: Any
    sample_index: int
    token_id: int | None
    position: int
    logprobs: Logprobs | None
    finish_reason: str | None
    num_computed: int
    num_reused: int
    stop: int | None = None
    error: str | None = None
    dropped: tuple[int, int] | None = None
    made_by: Pass | None = None
    from_draft: bool = False
    drafts: PassDrafts | None = None
