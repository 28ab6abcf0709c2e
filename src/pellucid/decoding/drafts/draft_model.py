"""Drafts from a smaller model of the same vocabulary, chosen with the noise of the request itself.

Two Gumbel-max draws with the same noise from like distributions mostly come to the same token: with total variation
distance TV between them, with probability at least (1 - TV) / (1 + TV) (Daliri, Musco and Suresh 2024,
arXiv 2408.07978), and no information goes from the large model to the small one.
"""

from __future__ import annotations

from time import perf_counter
from typing import Protocol

from pellucid.decoding.drafts.base import Draft
from pellucid.decoding.jacobi import guessing_sampler
from pellucid.decoding.verify import Ahead
from pellucid.sampling.base import History
from pellucid.sampling.params import SamplingParams
from pellucid.types import Float32, Int32

MEMORY = 0.8  # of the measured seconds of a guess


class Predictor(Protocol):
    """The small model, following one request's samples."""

    def logits(self, sample_index: int, token_ids: Int32) -> Float32 | None:
        """float32 [vocabulary] of the token after these; None: they fill its context. What the tokens share with
        those of the last call for this sample is not computed again."""


class ModelDrafter:
    """seconds_each: of one guess, as measured."""

    name = "model"
    costly = True

    def __init__(self, predictor: Predictor, params: SamplingParams, seed: int) -> None:
        self._predictor = predictor
        self._sampler = guessing_sampler(params, seed)
        self.seconds_each = 0.0

    def draft(self, history: History, most: int) -> Draft:
        ids: list[int] = []
        for _ in range(most):
            begun = perf_counter()
            past = Ahead(history, ids)
            logits = self._predictor.logits(history.sample_index, past.token_ids)
            if logits is None:
                break
            ids.append(self._sampler.choose(past, logits).token_id)
            if len(ids) > 1:  # the first catches up with what was accepted, or with the prompt
                self._note(perf_counter() - begun)
            if ids[-1] in history.stop_ids:
                break
        return Draft(ids)

    def _note(self, seconds: float) -> None:
        known = self.seconds_each
        self.seconds_each = seconds if known == 0 else MEMORY * known + (1 - MEMORY) * seconds
