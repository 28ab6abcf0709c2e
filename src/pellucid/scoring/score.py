"""Scores of continuations and perplexity of texts, from encoded pairs to results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from math import fsum
from typing import TYPE_CHECKING

from pellucid.errors import UsageError
from pellucid.prompts import check_vocabulary
from pellucid.scoring.encode import BOUNDARIES, Encoded, prefix_id, rolling_windows
from pellucid.scoring.front import overflow
from pellucid.scoring.results import Perplexity, Score, Scores
from pellucid.scoring.trie import WINDOW, Line, Pair, score_pairs

if TYPE_CHECKING:
    from pellucid.llm import LLM

MEASURES = ("logprob", "per_token", "per_character", "per_byte", "pmi")


def check_boundary(boundary: str) -> None:
    if boundary not in BOUNDARIES:
        raise UsageError(f"boundary: expected one of {', '.join(BOUNDARIES)}, got {boundary!r:.40}")


def score_one(
    llm: LLM, encoded: Sequence[Encoded], given: Sequence[str] | Sequence[Sequence[int]], truncate: bool
) -> Scores:
    """The scores in the order given; continuations of equal contexts share one trie."""
    fitted = [fit(llm, each, truncate) for each in encoded]
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (pair, _) in enumerate(fitted):
        groups.setdefault(tuple(pair.context), []).append(index)
    pairs = [Pair(context, [fitted[i][0].continuation for i in found]) for context, found in groups.items()]
    lines, num_computed = score_pairs(llm._open_driver(), pairs)
    scores: dict[int, Score] = {}
    for found, group in zip(groups.values(), lines, strict=True):
        for index, line in zip(found, group, strict=True):
            scores[index] = _score(llm, fitted[index], given[index], line)
    separate = sum(len(pair.context) + len(pair.continuation) - 1 for pair, _ in fitted)
    return Scores([scores[i] for i in range(len(fitted))], num_computed, separate - num_computed)


def fit(llm: LLM, pair: Encoded, truncate: bool) -> tuple[Encoded, int]:
    """(the pair that fits the context, tokens dropped at its left); the last token is not computed."""
    size = llm._need().model.vocabulary_size
    check_vocabulary(pair.context, size)
    check_vocabulary(pair.continuation, size)
    excess = len(pair.context) + len(pair.continuation) - 1 - llm.context_length
    if excess <= 0:
        return pair, 0
    if not truncate or excess >= len(pair.context):
        raise overflow(excess, llm.context_length)
    return pair._replace(context=pair.context[excess:]), excess


def _score(llm: LLM, fitted: tuple[Encoded, int], given: str | Sequence[int], line: Line) -> Score:
    pair, dropped = fitted
    text = given if isinstance(given, str) else None
    data = text.encode("utf-8") if text is not None else llm.tokenizer.join(pair.continuation)
    return Score(
        text,
        tuple(pair.continuation),
        line.logprobs,
        all(line.greedy),
        len(pair.context),
        len(data),
        pair.merged,
        dropped,
    )


def ranked(scores: Scores, by: str) -> list[int]:
    """Indexes, the best first."""
    if by not in MEASURES:
        raise UsageError(f"by: expected one of {', '.join(MEASURES)}, got {by!r:.40}")
    values = [getattr(score, by) for score in scores]
    if None in values:
        raise UsageError(
            f"by={by!r}: continuation {values.index(None)} was given as ids and has no such measure"
        )
    return sorted(range(len(values)), key=lambda index: -values[index])


def perplexity(llm: LLM, text: str, window: int | None, stride: int | None) -> Perplexity:
    window = llm.context_length if window is None else window
    if not 1 <= window <= llm.context_length:
        raise UsageError(f"window: expected 1 to {llm.context_length}, got {window}")
    stride = window if stride is None else stride
    if not 1 <= stride <= window:
        raise UsageError(f"stride: expected 1 to the window of {window}, got {stride}")
    ids = llm.tokenizer.encode(text, add_bos=False)
    if not ids:
        raise UsageError("the text is empty: perplexity needs at least one token")
    windows = rolling_windows(ids, prefix_id(llm.tokenizer), window, stride)
    sums: list[float] = []
    num_windows = 0
    for some in _batches(windows):
        lines, _ = score_pairs(llm._open_driver(), [Pair(context, [after]) for context, after in some])
        sums += [value for (line,) in lines for value in line.logprobs]
        num_windows += len(some)
    return Perplexity(
        fsum(sums),
        len(ids),
        len(text.encode("utf-8")),
        len(re.split(r"\s+", text)),
        num_windows,
        window,
        stride,
    )


def _batches(
    windows: Iterator[tuple[list[int], list[int]]],
) -> Iterator[list[tuple[list[int], list[int]]]]:
    while some := list(islice(windows, WINDOW)):
        yield some
