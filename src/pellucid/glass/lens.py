"""The logit lens: what each layer would predict if it were the last (nostalgebraist 2020).

The rows of all layers go through the model's own final norm and head together, as so many rows of one pass: the head's
weights are read once for all of them, and the last layer's row gives the logits of the model, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from pellucid.glass.captured import Captured
from pellucid.glass.flow import Capture
from pellucid.models.base import Model
from pellucid.sampling.distribution import Distribution
from pellucid.types import Array, Float32, Int32

LOGITS_BYTES: Final = 16 << 20  # of logits that are there at a time: more leave the caches
Guard = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Lens:
    """Rows are positions, columns are layers: "embed" (what goes into the first), then each layer's output; the last
    column is the model's own distribution.

    positions: int32 [rows], row i is what was known at that position, and predicts the token after it. layers: their
    names. tokens: int32 [rows], the token looked for in each row: what followed there, unless others were named.
    top_ids: int32 [rows, layers, k] and top_logprobs: float32, the most probable tokens, best first. ranks: int32
    [rows, layers] of `tokens` (0: the most probable), logprobs: float32 [rows, layers] of them. entropies: float32
    [rows, layers], in nats.
    """

    positions: Int32
    layers: tuple[str, ...]
    tokens: Int32
    top_ids: Int32
    top_logprobs: Float32
    ranks: Int32
    logprobs: Float32
    entropies: Float32

    def __repr__(self) -> str:
        rows, layers, k = self.top_ids.shape
        return f"Lens({rows} positions x {layers} layers, ranks and the {k} best)"

    def settled(self) -> Int32:
        """By row: the first column from which on the looked-for token is the most probable to the end; len(layers)
        where it is not even in the last. int32 [rows]."""
        return np.array([settled(row) for row in self.ranks.tolist()], np.int32)

    def _repr_html_(self) -> str:
        from pellucid.report.notebook import lens_html

        return lens_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {name: getattr(self, name).tolist() for name in _ARRAYS} | {"layers": list(self.layers)}


def settled(ranks: Sequence[int]) -> int:
    """ranks: of one token, by layer. The first layer from which on it is the first (rank 0) to the end; len(ranks): it
    is not even in the last."""
    since = len(ranks)
    while since > 0 and ranks[since - 1] == 0:
        since -= 1
    return since


_ARRAYS = ("positions", "tokens", "top_ids", "top_logprobs", "ranks", "logprobs", "entropies")


def lens_capture(num_layers: int, positions: tuple[int, int | None]) -> Capture:
    """What the lens needs: the stream before the first layer and after each."""
    every = tuple(range(num_layers))
    return Capture(("resid_pre", "resid_post"), {"resid_pre": (0,), "resid_post": every}, positions)


def stream_of(captured: Captured) -> Float32:
    """float32 [positions, layers + 1, width]: before the first layer, and after each. UsageError: not captured."""
    captured.need("lens", {"resid_pre": (0,), "resid_post": range(captured.num_layers)})
    # all its layers are there, in order
    return np.concatenate([captured.at("resid_pre", 0)[:, None], captured["resid_post"]], axis=1)


def readout(model: Model, stream: Float32) -> Float32:
    """Rows of the residual stream [rows, width] -> logits [rows, vocabulary], as the model makes them."""
    x = np.ascontiguousarray(stream, np.float32)
    found: Float32 = model.ops.linear(model.final_norm(x), model.head)
    return found


class _Columns:
    """What is known of each row of logits, filled in as the rows come. rows: of all positions and layers."""

    def __init__(self, rows: int, k: int, tokens: Int32, vocabulary: int, num_threads: int) -> None:
        """tokens: int32 [rows], looked for in each row."""
        self.tokens = tokens
        self.top_ids = np.empty((rows, k), np.int32)
        self.top_logprobs = np.empty((rows, k), np.float32)
        self.ranks, self.logprobs = np.empty(rows, np.int32), np.empty(rows, np.float32)
        self.entropies = np.empty(rows, np.float32)
        # Temporary rows, for each thread: as large as they are, new ones would be new pages each time.
        self._spare = [np.empty((2, vocabulary), np.float32) for _ in range(num_threads)]

    def fill(self, first: int, logits: Float32, thread: int) -> None:
        """Rows from `first` on."""
        spare = self._spare[thread]
        for i, row in enumerate(logits, first):
            found, token = Distribution(row), int(self.tokens[i])
            ids = found.top(self.top_ids.shape[1])
            self.top_ids[i] = ids
            self.top_logprobs[i] = [found.logprob(each) for each in ids]
            self.logprobs[i], self.ranks[i] = found.logprob(token), found.rank(token)
            self.entropies[i] = _entropy(row, found.log_normalizer, spare)

    def fill_all(self, first: int, logits: Float32, pool: ThreadPoolExecutor | None) -> None:
        """The same, by all threads: what takes time in it lets other threads run."""
        count = len(self._spare)
        cuts = [len(logits) * i // count for i in range(count + 1)]
        if pool is None:
            self.fill(first, logits, 0)
            return
        parts = [
            pool.submit(self.fill, first + start, logits[start:stop], thread)
            for thread, (start, stop) in enumerate(pairwise(cuts))
        ]
        for part in parts:
            part.result()


def _entropy(logits: Float32, log_normalizer: float, spare: Float32) -> float:
    """In nats; float32, which is ten times as fast as Distribution.entropy and as good as what is kept of it. spare:
    [2, vocabulary], to be overwritten."""
    logprobs = np.subtract(logits, np.float32(log_normalizer), out=spare[0])
    return max(0.0, -float(np.dot(np.exp(logprobs, out=spare[1]), logprobs)))


def make_lens(
    model: Model,
    stream: Float32,
    positions: Int32,
    tokens: Int32,
    k: int,
    guard: Guard,
    num_threads: int = 1,
) -> Lens:
    """stream: [rows, layers + 1, width]; tokens: [rows], -1: the most probable of the last layer. guard: held while
    the model's operations run. num_threads: that read the logits."""
    rows, columns, width = stream.shape
    count = rows * columns
    at_once = max(1, LOGITS_BYTES // (4 * model.vocabulary_size))
    wanted = tokens.astype(np.int32).copy()
    unknown = np.flatnonzero(wanted < 0)
    for start in range(0, len(unknown), at_once):
        some = unknown[start : start + at_once]
        with guard():
            logits = readout(model, stream[some, -1])
        wanted[some] = [Distribution(row).top(1)[0] for row in logits]
    found = _Columns(
        count, min(k, model.vocabulary_size), np.repeat(wanted, columns), model.vocabulary_size, num_threads
    )
    flat = stream.reshape(count, width)
    with ThreadPoolExecutor(num_threads) if num_threads > 1 else nullcontext() as pool:
        for first in range(0, count, at_once):
            with guard():
                logits = readout(model, flat[first : first + at_once])
            found.fill_all(first, logits, pool)
    names = ("embed", *map(str, range(columns - 1)))
    shape: Callable[[Array], Any] = lambda array: array.reshape(rows, columns, *array.shape[1:])  # noqa: E731
    return Lens(
        positions,
        names,
        wanted,
        shape(found.top_ids),
        shape(found.top_logprobs),
        shape(found.ranks),
        shape(found.logprobs),
        shape(found.entropies),
    )
