"""Held sequences: driven by hand instead of by a request. They are evaluated, forked, cut, changed, and parked.

A held sequence has tokens, KV blocks and, once it is evaluated, the logits after its last token. It is evaluated
in the passes that serve everybody. Between evaluations it is parked: it keeps its blocks until somebody who runs
needs the room; what was taken is found in the prefix cache or computed again, with the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np

from pellucid.engine.blocks import BlockPool
from pellucid.engine.limits import Limits
from pellucid.engine.request import as_token_ids
from pellucid.engine.scheduler import Scheduler
from pellucid.engine.sequence import Sequence
from pellucid.errors import UsageError
from pellucid.types import Float32, Int32, Watch

Rows = Callable[["Held", int, Float32], None]
"""Takes (held sequence, position of the first row, rows of logits); the rows are valid during the call only."""
Guard = Callable[[], AbstractContextManager[None]]


class Cost(NamedTuple):
    """Positions. computed: rows of forward passes. reused: taken from the prefix cache or from the sequence that
    this one was forked from. recomputed: those of `computed` that it had had before, and lost because others
    needed the room."""

    computed: int
    reused: int
    recomputed: int


class Evaluation:
    """A held sequence that is catching up. rows: float32 [positions wanted, vocabulary], filled as they come;
    None where `on_rows` takes them."""

    def __init__(self, held: Held, vocabulary_size: int, on_rows: Rows | None) -> None:
        sequence = held.sequence
        self.held = held
        self.on_rows = on_rows
        self.first = sequence.first_wanted
        self.rows: Float32 | None = None
        if on_rows is None:
            self.rows = np.empty((sequence.num_tokens - self.first, vocabulary_size), np.float32)
        self.error: Exception | None = None
        self.done = False

    def last_row(self, logits: Float32) -> Float32:
        """The last of these rows, to be kept: read-only."""
        if self.rows is not None and len(self.rows) == 1:
            row: Float32 = self.rows[0]
            self.rows.flags.writeable = False
        else:
            row = logits[-1].copy()
        row.flags.writeable = False
        return row


class Held:
    """One held sequence. Made by `Driver.hold` (or `HeldSequences.hold`), evaluated by `Driver.evaluate`.

    Every method may be called from any thread, but a sequence that is being evaluated is not to be changed.
    logits: float32 [vocabulary] after the last token; None: not evaluated since the last change. It is shared
    with forks: not to be written. first_logit: logits of positions from it on are wanted by the next
    evaluation, which sets it back to None: of the last token. ahead: the guesses of `draft` that were computed, and
    float32 [guesses, vocabulary] after each of them.
    Errors of all methods: UsageError (closed, being evaluated, out of range), ContextOverflowError.
    """

    __slots__ = ("__weakref__", "_all", "_closed", "_guard", "ahead", "logits", "sequence")

    def __init__(self, all_held: HeldSequences, sequence: Sequence, guard: Guard) -> None:
        self._all = all_held
        self._guard = guard
        self._closed = False
        self.sequence = sequence  # the History that logits processors see; for the engine to change
        self.logits: Float32 | None = None
        self.ahead: tuple[list[int], Float32] | None = None

    @property
    def token_ids(self) -> Int32:
        """int32 [tokens], a view that is valid until the next change."""
        return self.sequence.token_ids

    def __len__(self) -> int:
        return self.sequence.num_tokens

    @property
    def num_computed(self) -> int:
        """Positions whose keys and values it holds at this moment."""
        return self.sequence.num_computed

    @property
    def cost(self) -> Cost:
        sequence = self.sequence
        return Cost(sequence.num_rows, sequence.num_reused, sequence.num_recomputed)

    @property
    def first_logit(self) -> int | None:
        return self.sequence.first_logit

    @first_logit.setter
    def first_logit(self, position: int | None) -> None:
        with self._guard():
            self._check()
            if position is not None:
                self._check_position(position, self.sequence.num_tokens - 1)
            self.sequence.first_logit = position

    def fork(self) -> Held:
        """Another sequence with the same tokens. It shares every computed position; who first writes into the
        last, partly filled block copies that block."""
        with self._guard():
            self._check()
            parent = self.sequence
            child = parent.fork(parent.sample_index)
            self._all.pool.fork(parent, child)
            child.num_reused = child.num_computed
            if child.block_table:
                self._all.scheduler.park(child)
            held = Held(self._all, child, self._guard)
            held.logits = self.logits
            return held

    def append(self, ids: Iterable[int] | Int32) -> None:
        """Tokens to be computed by the next evaluation; one that was guessed right is computed already."""
        with self._guard():
            self._check()
            array = as_token_ids(ids)
            if len(array) > 1 or not self._accept(int(array[0])):
                self._extend(array)

    def draft(self, ids: list[int]) -> None:
        """Guesses of what follows: the next evaluation computes them in the same pass, if it has one row of its own to
        compute and room for them. They are not tokens of the sequence."""
        with self._guard():
            self._check()
            sequence = self.sequence
            room = self._all.limits.context_length - sequence.num_tokens
            if sequence.num_behind == 1 and sequence.first_logit is None and room > 0:
                sequence.draft(ids[:room])

    def truncate(self, num_tokens: int) -> None:
        """Only the first num_tokens tokens (at least one) stay, and what is computed of them."""
        with self._guard():
            self._check()
            self._check_position(num_tokens, self.sequence.num_tokens, least=1)
            self._truncate(num_tokens)

    def set(self, position: int, token_id: int) -> None:
        """Another token at this position; what follows it stays, to be computed again."""
        self.replace(position, position + 1, [token_id])

    def replace(self, start: int, stop: int, ids: Iterable[int] | Int32) -> None:
        """Other tokens in place of [start, stop), any number of them; what follows is to be computed again."""
        new = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
        with self._guard():
            self._check()
            sequence = self.sequence
            self._check_position(start, sequence.num_tokens)
            self._check_position(stop, sequence.num_tokens, least=start)
            whole = as_token_ids(np.concatenate([new, sequence.rows(stop, sequence.num_tokens)]))
            self._all.limits.check_append(start, whole)
            self._truncate(start)
            self._extend(whole)

    def close(self, *, keep: int | None = None) -> None:
        """Gives its blocks back (to the prefix cache). Done by itself where the last reference is dropped.

        keep: of what it alone has computed, only its first `keep` tokens are worth finding again: the blocks after
        them are the first to be written anew, while they are still near the processor. None: all of it.
        """
        with self._guard():
            if not self._closed:
                self._all.check(self.sequence, closing=True)
                self._closed = True
                self.logits = self.ahead = None
                self._all.forget(self.sequence, keep)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._all.drop(self.sequence)  # safe from anywhere: it only notes

    def _accept(self, token_id: int) -> bool:
        """A token whose guess was right and whose keys and values are still there."""
        ahead, self.ahead = self.ahead, None
        sequence, pool = self.sequence, self._all.pool
        position = sequence.num_tokens
        if ahead is None or ahead[0][0] != token_id or sequence.num_computed < position:
            return False
        if position >= len(sequence.block_table) * pool.block_size:  # it lay in a block that was given back
            return False
        sequence.append(token_id)
        sequence.num_computed = position + 1
        pool.commit(sequence)
        guesses, rows = ahead
        self.logits = rows[0]
        self.ahead = (guesses[1:], rows[1:]) if len(guesses) > 1 else None
        return True

    def _extend(self, ids: Int32) -> None:
        self._all.limits.check_append(self.sequence.num_tokens, ids)
        self.sequence.extend(ids)
        self.sequence.drafts = []
        self.logits = self.ahead = None

    def _truncate(self, num_tokens: int) -> None:
        sequence = self.sequence
        if num_tokens == sequence.num_tokens:
            return
        self._all.cut(sequence, num_tokens)
        sequence.shorten(num_tokens)
        sequence.num_prompt = min(sequence.num_prompt, num_tokens)
        sequence.first_logit = None
        sequence.drafts = []
        self.logits = self.ahead = None

    def _check(self) -> None:
        if self._closed:
            raise UsageError("this sequence is closed; hold or fork another")
        self._all.check(self.sequence)

    def _check_position(self, position: int, most: int, least: int = 0) -> None:
        if not least <= position <= most:
            raise UsageError(f"expected a position from {least} to {most}, got {position}")


class HeldSequences:
    """All held sequences of an engine. Knows no tensors, so that a Held does not keep the cache alive."""

    def __init__(self, pool: BlockPool, scheduler: Scheduler, limits: Limits) -> None:
        self.pool, self.scheduler, self.limits = pool, scheduler, limits
        self._evaluations: dict[Sequence, Evaluation] = {}
        self._dropped: deque[Sequence] = deque()
        self._closed = False

    def hold(
        self,
        ids: Iterable[int] | Int32,
        *,
        salt: Hashable = None,
        watch: Watch | None = None,
        guard: Guard = nullcontext,
    ) -> Held:
        """A held sequence of these tokens, at least one; nothing is computed yet. Errors: those of a prompt."""
        self._check_open()
        self.forget_dropped()
        array = as_token_ids(ids)
        self.limits.check_score(array)
        return Held(self, Sequence(array, salt=salt, watch=watch), guard)

    def begin(self, held: Iterable[Held], on_rows: Rows | None = None) -> list[Evaluation]:
        """Lets these catch up in the engine's next steps; a sequence whose wanted logits are there is done."""
        self.forget_dropped()
        listed = list(held)
        if len({id(each) for each in listed}) != len(listed):
            raise UsageError("a held sequence is there twice; evaluate a fork of it")
        for each in listed:
            each._check()
        return [self._begin(each, on_rows) for each in listed]

    def _begin(self, held: Held, on_rows: Rows | None) -> Evaluation:
        sequence = held.sequence
        evaluation = Evaluation(held, self.limits.vocabulary_size, on_rows)
        if held.logits is not None and evaluation.first == sequence.num_tokens - 1:
            self._hand_over(evaluation, evaluation.first, held.logits[None])
            evaluation.done = True
            sequence.first_logit = None
            return evaluation
        if sequence.num_computed > evaluation.first:
            self.cut(sequence, evaluation.first)
        self._evaluations[sequence] = evaluation
        self.scheduler.add(sequence)
        return evaluation

    def take(self, sequence: Sequence, logits: Float32) -> bool:
        """Rows of logits that a pass has computed, the last of position num_computed - 1. False: not held."""
        evaluation = self._evaluations.get(sequence)
        if evaluation is None:
            return False
        stop = sequence.num_computed
        ahead: tuple[list[int], Float32] | None = None
        if sequence.drafts and stop == sequence.num_tokens and len(logits) > stop - evaluation.first:
            ahead = sequence.drafts[: len(logits) - 1], logits[1:].copy()
            ahead[1].flags.writeable = False
            logits = logits[:1]
        sequence.drafts = []
        self._hand_over(evaluation, stop - len(logits), logits)
        sequence.first_logit = stop  # if it is preempted now, it goes on from here
        if stop == sequence.num_tokens or evaluation.error is not None:
            self._end(evaluation)
            if evaluation.error is None:
                evaluation.held.logits = evaluation.last_row(logits)
                evaluation.held.ahead = ahead
        return True

    def fail(self, sequence: Sequence, error: Exception) -> bool:
        """Its evaluation ends with this error. False: not held."""
        evaluation = self._evaluations.get(sequence)
        if evaluation is not None:
            evaluation.error = error
            self._end(evaluation)
        return evaluation is not None

    def cancel(self, evaluation: Evaluation) -> None:
        """Stops an evaluation that is not done; what it has computed stays."""
        if not evaluation.done:
            self._end(evaluation)

    def _end(self, evaluation: Evaluation) -> None:
        sequence = evaluation.held.sequence
        evaluation.done = True
        sequence.first_logit = None
        del self._evaluations[sequence]
        self.scheduler.park(sequence)

    def _hand_over(self, evaluation: Evaluation, position: int, logits: Float32) -> None:
        if evaluation.rows is not None:
            start = position - evaluation.first
            evaluation.rows[start : start + len(logits)] = logits
        elif evaluation.on_rows is not None:
            try:
                evaluation.on_rows(evaluation.held, position, logits)
            except Exception as error:  # it is the caller's code: nobody else's pass fails
                evaluation.error = error

    def cut(self, sequence: Sequence, num_computed: int) -> None:
        """What is computed from num_computed on is forgotten."""
        if sequence.num_computed > num_computed or sequence.block_table:
            self.pool.truncate(sequence, num_computed)
            if not sequence.block_table:
                self.scheduler.parked.pop(sequence, None)

    def check(self, sequence: Sequence, *, closing: bool = False) -> None:
        """UsageError: the engine is closed, or the sequence is being evaluated."""
        if not closing:
            self._check_open()
        if sequence in self._evaluations:
            raise UsageError("this sequence is being evaluated; wait for it, or work on a fork of it")

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the LLM of this sequence is closed; make a new one")

    def drop(self, sequence: Sequence) -> None:
        """As `forget`, at the next occasion: safe from any thread, even in a finaliser amid a pass."""
        self._dropped.append(sequence)

    def forget_dropped(self) -> None:
        while self._dropped:
            self.forget(self._dropped.popleft())

    def forget(self, sequence: Sequence, keep: int | None = None) -> None:
        evaluation = self._evaluations.get(sequence)
        if evaluation is not None:
            self.cancel(evaluation)
        self.scheduler.parked.pop(sequence, None)
        self.pool.free(sequence, keep)

    def close(self) -> None:
        for evaluation in list(self._evaluations.values()):
            evaluation.error = UsageError("the LLM was closed while this sequence was being evaluated")
            self.cancel(evaluation)
        self._closed = True
