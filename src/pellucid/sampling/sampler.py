"""One choice: logits -> processors -> draw -> token, with log-probabilities on request. Knows no engine."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple, cast

import numpy as np

from pellucid import _native
from pellucid.errors import PellucidError
from pellucid.sampling.base import History
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.random import SAMPLE_STREAM
from pellucid.types import Float32, Int32


class NoTokenLeftError(PellucidError):
    """The constraints of a request exclude every token at some position."""


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


class Choice(NamedTuple):
    token_id: int
    logprobs: Logprobs | None


class Sampler:
    """The processors of one request in order, and its draw: a pure function of (logits, history)."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        processors = params.processors()
        if params.greedy and params.logprobs is None:  # what cannot change the largest need not run
            processors = [p for p in processors if not p.keeps_argmax]
        self.processors = processors
        self._num_top = params.logprobs
        self._greedy = params.greedy
        self._seed = seed % 2**64

    def process(self, history: History, logits: Float32) -> Float32:
        """float32 [vocabulary] after every processor; `logits` itself is left as it is."""
        if not self.processors:
            return logits
        processed = logits.copy()
        for processor in self.processors:
            processed = processor(history, processed)
        return processed

    def choose(self, history: History, logits: Float32) -> Choice:
        """The token for position len(history.token_ids). NoTokenLeftError if the constraints exclude all;
        ValueError if a logit is NaN or +inf."""
        processed = self.process(history, logits)
        if self._greedy:
            token = _native.argmax(processed)
        else:
            position = len(history.token_ids)
            token = _native.gumbel_argmax(
                processed, self._seed, history.sample_index, position, SAMPLE_STREAM
            )
        if token < 0:
            raise self._no_token_left(history, logits)
        if self._num_top is None:
            return Choice(token, None)
        return Choice(token, self._logprobs(token, logits, processed))

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
        names = ", ".join(dict.fromkeys(f.name for p in self.processors for f in fields(cast(Any, p))))
        return NoTokenLeftError(where + f"{names} exclude every token between them; loosen one")
