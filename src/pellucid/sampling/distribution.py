"""The distribution behind one row of logits: probabilities, the most probable tokens, entropy. Float64 throughout."""

from __future__ import annotations

from functools import cached_property
from math import exp

import numpy as np
from numpy.typing import NDArray

from pellucid import _native
from pellucid.types import Float32, Int32


class Distribution:
    """softmax(logits); logits float32 [vocabulary], -inf where a token is excluded. Nothing is computed before it is
    asked for."""

    def __init__(self, logits: Float32) -> None:
        self.logits = logits

    @cached_property
    def log_normalizer(self) -> float:
        """log sum exp(logits): a log-probability is a logit minus this."""
        return float(_native.log_normalizer(self.logits))

    def logprob(self, token_id: int) -> float:
        """Natural logarithm of the token's probability."""
        return float(self.logits[token_id]) - self.log_normalizer

    def probability(self, token_id: int) -> float:
        return exp(self.logprob(token_id))

    def top(self, k: int) -> list[int]:
        """The k most probable token ids, most probable first, the lower id first of equals."""
        ids: Int32 = np.empty(min(k, len(self.logits)), np.int32)
        _native.top_k(self.logits, ids)
        found: list[int] = ids.tolist()
        return found

    @cached_property
    def entropy(self) -> float:
        """In nats."""
        logprobs: NDArray[np.float64] = self.logits.astype(np.float64) - self.log_normalizer
        kept = logprobs[logprobs > -np.inf]
        return max(0.0, float(-(np.exp(kept) * kept).sum()))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{token}</td><td>{self.probability(token):.4f}</td><td><div style='background:currentColor;"
            f"opacity:.5;height:.7em;width:{12 * self.probability(token):.2f}em'></div></td></tr>"
            for token in self.top(10)
        )
        head = "<tr><th>token id</th><th>probability</th><th></th></tr>"
        return f"<div>entropy {self.entropy:.4f} nats<table>{head}{rows}</table></div>"

    def rank(self, token_id: int) -> int:
        """How many tokens come before it in the order of `top`."""
        logit = self.logits[token_id]
        before = np.count_nonzero(self.logits > logit) + np.count_nonzero(self.logits[:token_id] == logit)
        return int(before)
