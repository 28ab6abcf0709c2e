"""Scores of many items, from texts to results: a bounded number at a time, equal contexts computed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from pellucid.errors import ContextOverflowError, UsageError
from pellucid.scoring.encode import Encoded, encode_all
from pellucid.scoring.results import Score, Scores
from pellucid.scoring.score import check_boundary, fit, most_tokens
from pellucid.scoring.trie import Line, Pair, score_pairs

if TYPE_CHECKING:
    from pellucid.llm import LLM

TOGETHER = 128  # items whose equal contexts are found; results wait in memory for these at most

Context = str | Sequence[int]
Continuations = Sequence[str | Sequence[int]]


class _Fitted(NamedTuple):
    """pair: as it is scored. num_dropped: tokens taken off its left."""

    pair: Encoded
    num_dropped: int


class _Item(NamedTuple):
    """given: the continuations. rows: of each, after the context and (None: not asked for) after the unconditional
    one."""

    given: Continuations
    rows: list[_Fitted]
    base: list[_Fitted] | None


def score_items(
    llm: LLM,
    items: Iterable[tuple[Context, Continuations]],
    boundary: str,
    unconditional: Context | None,
    truncate: bool,
) -> Iterator[Scores | UsageError | ContextOverflowError]:
    """For each item, in their order, its scores or the error that is its own. Arguments as of `LLM.score`.

    The numbers of an item do not depend on the others. num_computed: a context that several items share is counted
    in the first of them.
    """
    check_boundary(boundary)

    def prepared(item: tuple[Context, Continuations]) -> _Item | UsageError | ContextOverflowError:
        try:
            return _prepare(llm, item, boundary, unconditional, truncate)
        except (UsageError, ContextOverflowError) as error:
            return error

    source = iter(items)
    while window := [prepared(item) for item in islice(source, TOGETHER)]:
        scored = _score_window(llm, [item for item in window if isinstance(item, _Item)])
        for item in window:
            yield next(scored) if isinstance(item, _Item) else item


def _prepare(
    llm: LLM,
    item: tuple[Context, Continuations],
    boundary: str,
    unconditional: Context | None,
    truncate: bool,
) -> _Item:
    if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
        raise UsageError(f"expected a pair (context, continuations), got {item!r:.60}")
    context, given = item

    def fitted(before: Context) -> list[_Fitted]:
        encoded = encode_all(llm.tokenizer, before, given, boundary)
        return [_Fitted(*fit(llm, pair, truncate)) for pair in encoded]

    return _Item(given, fitted(context), None if unconditional is None else fitted(unconditional))


def _score_window(llm: LLM, items: Sequence[_Item]) -> Iterator[Scores]:
    """One trie for each different context of these items; an item comes as soon as its last trie is done."""
    groups: dict[tuple[int, ...], list[Sequence[int]]] = {}
    places: list[
        list[tuple[tuple[int, ...], int]]
    ] = []  # of each item: (context, which of its continuations)
    for item in items:
        found = []
        for pair, _ in [*item.rows, *(item.base or [])]:
            key = tuple(pair.context)
            group = groups.setdefault(key, [])
            found.append((key, len(group)))
            group.append(pair.continuation)
        places.append(found)
    pairs = (Pair(context, continuations) for context, continuations in groups.items())
    results = zip(groups, score_pairs(llm._open_driver(), pairs, most_tokens(llm)), strict=True)
    lines: dict[tuple[int, ...], list[Line]] = {}
    fresh: dict[tuple[int, ...], int] = {}  # positions computed, not yet counted in an item
    for item, found in zip(items, places, strict=True):
        while any(key not in lines for key, _ in found):
            key, (group_lines, num_computed) = next(results)
            lines[key], fresh[key] = group_lines, num_computed
        num_computed = sum(fresh.pop(key, 0) for key in dict.fromkeys(key for key, _ in found))
        yield _scores(llm, item, [lines[key][index] for key, index in found], num_computed)


def _scores(llm: LLM, item: _Item, lines: Sequence[Line], num_computed: int) -> Scores:
    fitted = [*item.rows, *(item.base or [])]
    separate = sum(len(pair.context) + len(pair.continuation) - 1 for pair, _ in fitted)
    each = zip(item.rows, item.given, lines, strict=False)  # lines: those of the base follow
    scores = [_score(llm, row, given, line) for row, given, line in each]
    if item.base is not None:
        base = [sum(line.logprobs) for line in lines[len(item.rows) :]]
        scores = [replace(score, unconditional=value) for score, value in zip(scores, base, strict=True)]
    return Scores(scores, num_computed, separate - num_computed)


def _score(llm: LLM, fitted: _Fitted, given: str | Sequence[int], line: Line) -> Score:
    pair = fitted.pair
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
        fitted.num_dropped,
    )
