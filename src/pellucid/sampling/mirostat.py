"""mirostat: a cut that steers the surprise of the text to a target (Basu et al. 2020, arXiv 2007.14966)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pellucid import _native
from pellucid.sampling.base import Scope, State, Step, parameter, samplers, stage
from pellucid.sampling.random import log
from pellucid.types import Float32, Int32

_HEAD = 100  # tokens from which version 1 estimates the exponent of Zipf's law
_LOG2 = 0.6931471805599453


@samplers.register("mirostat")
@stage
class Mirostat:
    """Version 2 keeps what surprises by at most mu bits; version 1 the k tokens that, by Zipf's law, have surprise
    mu. mu begins at 2 tau and after each token moves by eta times (tau - its surprise, in bits, after the cut).
    """

    order: ClassVar[int] = 900
    keeps_argmax: ClassVar[bool] = True
    scope: ClassVar[Scope] = "all"

    mirostat: int = parameter(
        0, "int", "the version of mirostat that steers the surprise, 1 or 2; 0: off", minimum=0, maximum=2
    )
    mirostat_tau: float = parameter(
        5.0,
        "float",
        "the surprise to aim at, in bits a token",
        minimum=0.0,
        maximum=100.0,
        modifies=("mirostat",),
    )
    mirostat_eta: float = parameter(
        0.1, "float", "how fast mirostat learns", minimum=0.0, maximum=1.0, modifies=("mirostat",)
    )

    def initial(self) -> State:
        return (2.0 * self.mirostat_tau,)

    def after(self, state: State, before: Float32, after: Float32, token_id: int) -> State:
        surprise = (_native.log_normalizer(after) - float(after[token_id])) / _LOG2
        return (state[0] - self.mirostat_eta * (surprise - self.mirostat_tau),)

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.mirostat == 0:
            return logits
        (mu,) = step.states["mirostat"]
        if self.mirostat == 2:
            _native.keep_surprise(logits, mu)
        else:
            _native.keep_top_k(logits, self._rank(mu, logits))
        return logits

    @staticmethod
    def _rank(mu: float, logits: Float32) -> int:
        """k of version 1: with p(rank) ~ rank^-s, fitted to the first 100 tokens, and e = s - 1:
        ((e 2^mu) / (1 - vocabulary^-e))^(1 / s)."""
        ids: Int32 = np.empty(min(_HEAD, len(logits)), np.int32)
        _native.top_k(logits, ids)
        head = logits[ids].astype(np.float64)
        head = head[head > -np.inf]
        if len(head) < 2:
            return 1
        ranks = np.arange(1.0, len(head))
        t, b = log((ranks + 1) / ranks), head[:-1] - head[1:]
        s = float(np.sum(t * b)) / float(np.sum(t * t))
        if s <= 1e-9:  # flat: Zipf's law has no such exponent, and every token is as good
            return len(logits)
        e = s - 1.0
        # log(e / (1 - n^-e)), whose limit for e -> 0 is -log(log(n))
        log_n = _native.log(float(len(logits)))
        if abs(e) < 1e-9:
            scale = -_native.log(log_n) if log_n > 0 else 0.0
        else:
            scale = _native.log(e / (1.0 - _native.exp(min(600.0, -e * log_n))))
        exponent = (scale + mu * _LOG2) / s
        return int(min(float(len(logits)), max(1.0, _native.exp(min(600.0, max(-600.0, exponent))))))
