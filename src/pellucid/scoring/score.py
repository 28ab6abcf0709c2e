"""What fits the context, the order of scores, and the perplexity of texts."""

from __future__ import annotations

import re
from math import fsum
from typing import TYPE_CHECKING

from pellucid.errors import ContextOverflowError, UsageError
from pellucid.prompts import check_vocabulary
from pellucid.scoring.encode import BOUNDARIES, Encoded, prefix_id, rolling_windows
from pellucid.scoring.results import MEASURES, Perplexity, Scores
from pellucid.scoring.trie import Pair, score_pairs

if TYPE_CHECKING:
    from pellucid.llm import LLM


def check_boundary(boundary: str) -> None:
    if boundary not in BOUNDARIES:
        raise UsageError(f"boundary: expected one of {', '.join(BOUNDARIES)}, got {boundary!r:.40}")


def overflow(excess: int, context_length: int) -> ContextOverflowError:
    return ContextOverflowError(
        f"context and continuation have {excess} tokens more than the context of {context_length} holds; "
        "shorten them, or give truncate=True to drop tokens at the left"
    )


def most_tokens(llm: LLM) -> int:
    """Positions of tries that are in the engine at once: half of what the KV cache holds, so that forks, which
    copy a block in part, find room."""
    capacity = llm._need().capacity
    return capacity.num_blocks * capacity.block_size // 2


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
    pairs = (Pair(context, [after]) for context, after in windows)
    sums: list[float] = []
    num_windows = 0
    for (line,), _ in score_pairs(llm._open_driver(), pairs, most_tokens(llm)):
        sums += line.logprobs
        num_windows += 1
    return Perplexity(
        fsum(sums),
        len(ids),
        len(text.encode("utf-8")),
        len(re.split(r"\s+", text)),
        num_windows,
        window,
        stride,
    )
