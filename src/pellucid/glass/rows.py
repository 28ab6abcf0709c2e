"""The rows of logits of a run, computed again: many positions a pass, with the bits that the run had.

What a token was chosen from depends on the tokens before it, their positions and the model alone, so a run needs no
logits in its file: all its positions are computed in long passes, as a prompt is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import RunFileError, UsageError
from pellucid.glass.apply import InterventionWatch, Together
from pellucid.glass.intervention_file import interventions_from_data
from pellucid.glass.run import PROMPT, Run, RunBranch, RunToken
from pellucid.types import Float32, Int32

if TYPE_CHECKING:
    from pellucid.engine.held import Held
    from pellucid.llm import LLM
    from pellucid.types import Watch

COMPANION_ROWS = 64  # logits of a companion sequence (guidance) that are held at a time

Take = Callable[[int, RunToken, "RunHistory", Float32], None]
"""Takes (index among the branch's tokens, the token, what stood before it, its logits as the model gave them)."""


@dataclass(frozen=True)
class RunHistory:
    """`sampling.base.History` of one token of a run."""

    token_ids: Int32
    num_prompt: int
    num_generated: int
    num_dropped: int
    sample_index: int
    stop_ids: Int32
    companion_logits: Float32 | None = None


@dataclass(frozen=True)
class Segment:
    """Tokens [first, last) of a branch, between two drops of a full context. context: ids before the first, as they
    stood then; num_prompt: how many of those are the prompt; num_dropped and dropped_output: taken out so far."""

    first: int
    last: int
    context: list[int]
    num_prompt: int
    num_dropped: int
    dropped_output: int


def segments(branch: RunBranch) -> Iterator[Segment]:
    """The whole branch; one segment where nothing was dropped. RunFileError: drops that the tokens contradict."""
    context, num_prompt = branch.prompt_ids.copy(), len(branch.prompt_ids)
    first = dropped = dropped_output = 0
    ids = branch.output_ids
    for drop in branch.drops:
        yield Segment(first, drop.after, context.copy(), num_prompt, dropped, dropped_output)
        context += ids[first : drop.after]
        if drop.start + drop.count > len(context) or drop.after < first:
            raise RunFileError(f"branch {branch.index}: a drop of tokens that are not there")
        of_prompt = min(max(0, num_prompt - drop.start), drop.count)
        del context[drop.start : drop.start + drop.count]
        num_prompt -= of_prompt
        dropped += drop.count
        dropped_output += drop.count - of_prompt
        first = drop.after
    yield Segment(first, len(ids), context, num_prompt, dropped, dropped_output)


class Histories:
    """Of a segment's tokens: `at(index)` is what stood before token `index` (or before the one that would come
    next)."""

    def __init__(self, branch: RunBranch, segment: Segment) -> None:
        self._branch, self._segment = branch, segment
        tokens = branch.tokens[segment.first : segment.last]
        self.token_ids: Int32 = np.array(segment.context + [token.token_id for token in tokens], np.int32)
        self._borders = [segment.num_prompt]  # before each token, and after the last
        for place, token in enumerate(tokens, len(segment.context) + 1):
            self._borders.append(place if token.kind == PROMPT else self._borders[-1])
        self._stops = [np.array(sorted(plan.stop_ids), np.int32) for plan in branch.plans]

    def at(self, index: int) -> RunHistory:
        segment, branch = self._segment, self._branch
        offset = index - segment.first
        ids, num_prompt = self.token_ids[: len(segment.context) + offset], self._borders[offset]
        plan = branch.tokens[index].plan if index < len(branch.tokens) else len(branch.plans) - 1
        generated = len(ids) - num_prompt + segment.dropped_output
        return RunHistory(
            ids, num_prompt, generated, segment.num_dropped, branch.sample_index, self._stops[plan]
        )


def walk(
    llm: LLM,
    branch: RunBranch,
    take: Take,
    *,
    start: int = 0,
    stop: int | None = None,
    watch: Callable[[], Watch] | None = None,
) -> None:
    """Calls take for the tokens [start, stop) of a branch, in order; the rows are valid during the call, which must not
    use the LLM. Nothing is taken from the prefix cache: every position is computed, with the branch's interventions.
    Logits that the caller had altered are given as the model gave them (`altered` changes them). watch: makes a watch
    of the rows of a pass, which are those of the calls that follow. Errors: RunFileError, those of `LLM.logits`, and
    what `take` raises."""
    stop = len(branch.tokens) if stop is None else stop
    largest, size = max(branch.prompt_ids + branch.output_ids, default=0), llm._need().model.vocabulary_size
    if largest >= size:
        raise RunFileError(
            f"branch {branch.index}: token {largest} is not in the vocabulary (0 to {size - 1})"
        )
    for segment in segments(branch):
        first, last = max(start, segment.first), min(stop, segment.last)
        if first < last:
            _Walk(llm, branch, segment, take, watch).run(first, last)


class _Walk:
    """Over the tokens of one segment."""

    def __init__(
        self,
        llm: LLM,
        branch: RunBranch,
        segment: Segment,
        take: Take,
        watch: Callable[[], Watch] | None,
    ) -> None:
        self._watch = watch
        self._changes = _changes_of(llm, branch)
        self._driver = llm._open_driver()
        self._branch, self._segment, self._take = branch, segment, take
        self._histories = Histories(branch, segment)

    def run(self, first: int, last: int) -> None:
        companion = self._branch.companion_ids
        if companion is None:
            self._rows(first, last, None)
            return
        if self._segment.first or self._segment.last < len(self._branch.tokens):
            raise RunFileError(
                f"branch {self._branch.index}: guidance and a context that slides do not go together"
            )
        for at in range(first, last, COMPANION_ROWS):
            stop = min(at + COMPANION_ROWS, last)
            output = [token.token_id for token in self._branch.tokens[: stop - 1]]
            others: list[Float32] = []
            self._evaluate(companion + output, len(companion) - 1 + at, _keeping(others), None)
            self._rows(at, stop, others)

    def _rows(self, first: int, last: int, companions: list[Float32] | None) -> None:
        row_of_first = len(self._segment.context) - 1 + first - self._segment.first

        def on_row(position: int, row: Float32) -> None:
            index = first + position - row_of_first
            history = self._histories.at(index)
            if companions is not None:
                history = replace(history, companion_logits=companions[index - first])
            self._take(index, self._branch.tokens[index], history, row)

        self._evaluate(self._histories.at(last - 1).token_ids, row_of_first, on_row, self._watching())

    def _watching(self) -> Watch | None:
        """What changes the rows as in the run, and then what the caller looks with."""
        looking = None if self._watch is None else self._watch()
        if self._changes is None or looking is None:
            return looking if self._changes is None else self._changes
        return Together(self._changes, looking)

    def _evaluate(
        self, ids: Any, first_row: int, on_row: Callable[[int, Float32], None], watch: Watch | None
    ) -> None:
        def on_rows(_: Held, position: int, rows: Float32) -> None:
            for place, row in enumerate(rows, position):
                on_row(place, row)

        held = self._driver.hold(ids, salt=("run", object()), watch=watch)
        held.first_logit = first_row
        try:
            self._driver.evaluate([held], on_rows)
        finally:
            held.close()


def _changes_of(llm: LLM, branch: RunBranch) -> InterventionWatch | None:
    """RunFileError: interventions that cannot be read, or that do not fit the model."""
    if not branch.interventions:
        return None
    try:
        given = interventions_from_data(branch.interventions, branch.arrays)
        return InterventionWatch(given, llm._need().model, len(branch.prompt_ids))
    except UsageError as error:
        raise RunFileError(
            f"branch {branch.index}: its interventions cannot be made again: {error}"
        ) from None


def _keeping(rows: list[Float32]) -> Callable[[int, Float32], None]:
    return lambda _, row: rows.append(row.copy())


def altered(token: RunToken, row: Float32) -> Float32:
    """The logits that the choice started from: the model's, or what the caller had made of them."""
    if not token.altered:
        return row
    ids = np.fromiter(token.altered, np.int64)
    if ids.max() >= len(row):
        raise RunFileError(
            f"position {token.position}: altered logits of token {ids.max()}, which is not there"
        )
    changed = row.copy()
    changed[ids] = np.fromiter(token.altered.values(), np.float32)
    return changed


def load_options_of(run: Run) -> dict[str, Any]:
    """What of the run's way of loading decides its numbers and its end."""
    names = ("backend", "kv_format", "activations", "context_length")
    return {name: run.load[name].value for name in names if name in run.load}


_DECIDING = ("architecture", "tokenizer", "weights")  # of the fingerprint


def check_model(run: Run, llm: LLM) -> None:
    """RunFileError: the run was of another architecture, tokenizer or weights. What else may differ
    (`numbers_differ`) is for a replay to find out."""
    from pellucid.fingerprint import fingerprint

    prints = fingerprint(llm)
    for name in _DECIDING:
        if run.model.get(name) != prints[name]:
            raise RunFileError(
                f"{run.path}: is a run of another model: its {name} {str(run.model.get(name))[:16]}, here "
                f"{str(prints[name])[:16]}; give the model that it names ({run.model_name[:60]!a})"
            )


def numbers_differ(run: Run, llm: LLM) -> list[str]:
    """Which parts of the fingerprint that change numbers are other than in the run, in words."""
    from pellucid.fingerprint import fingerprint

    prints = fingerprint(llm)
    names = {
        "backend": "backend", "kv_format": "KV format", "activations": "activations", "numbers": "arithmetic",
    }  # fmt: skip
    return [f"{word}: {str(run.model.get(name))[:16]} then, {str(prints[name])[:16]} now"
            for name, word in names.items() if run.model.get(name) != prints[name]]  # fmt: skip
