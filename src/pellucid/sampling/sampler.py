"""One choice: logits -> processors -> draw -> token, with the log-probabilities asked for. Knows no engine."""

from __future__ import annotations

from typing import NamedTuple

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

    raw: under the model. processed: under the distribution that the token was drawn from (with temperature 0: after
    all processors, not tempered). The alternatives are (token id, log-probability), most probable first.
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
        self._params = params
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
            token = _native.gumbel_argmax(processed, self._seed, history.sample_index, position, SAMPLE_STREAM)
        if token < 0:
            raise self._no_token_left(history, logits)
        if self._num_top is None:
            return Choice(token, None)
        return Choice(token, self._logprobs(token, logits, processed))

    def _logprobs(self, token: int, logits: Float32, processed: Float32) -> Logprobs:
        raw, top_raw = self._one_side(token, logits)
        if processed is logits:
            return Logprobs(raw, raw, top_raw, top_raw)
        return Logprobs(raw, *self._one_side(token, processed)[:1], top_raw, self._one_side(token, processed)[1])

    def _one_side(self, token: int, logits: Float32) -> tuple[float, tuple[tuple[int, float], ...]]:
        normalizer = _native.log_normalizer(logits)
        ids: Int32 = np.empty(self._num_top or 0, np.int32)
        _native.top_k(logits, ids)
        top = logits[ids].astype(np.float64) - normalizer
        return float(logits[token]) - normalizer, tuple(zip(ids.tolist(), top.tolist(), strict=True))

    def _no_token_left(self, history: History, logits: Float32) -> NoTokenLeftError:
        names = ", ".join(name for p in self.processors for name in p.__dataclass_fields__ if name in self._params)
        why = f"{names} exclude every token" if np.max(logits) > -np.inf else "the model gave every token logit -inf"
        return NoTokenLeftError(f"no token is left at position {len(history.token_ids)}: {why}; loosen them")
