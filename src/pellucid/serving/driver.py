"""One engine shared by all the requests of an LLM: whoever waits for a token drives it, for everybody."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

from pellucid.engine.engine import Engine, Request
from pellucid.engine.held import Evaluation, Held, Rows
from pellucid.engine.snapshot import Snapshot, block_bytes, put_back, take_cached, take_snapshot
from pellucid.front.speculation import Speculation
from pellucid.serving.interrupts import HeldInterrupts
from pellucid.serving.turn import Turn

if TYPE_CHECKING:
    from pellucid.engine.engine import TokenEvent
    from pellucid.engine.request import Pass
    from pellucid.serving.running import RunningRequest
    from pellucid.types import Bytes, Float32, Watch


class Driver:
    """Adds requests, runs forward passes, hands each event to the request that it belongs to.

    A pass and the handing out of its events are one piece: neither another thread nor Ctrl-C comes between.
    """

    def __init__(
        self, engine: Engine, eos_ids: frozenset[int], speculation: Speculation | None = None
    ) -> None:
        self._engine = engine
        self.speculation = Speculation(engine) if speculation is None else speculation
        self._held = engine.held
        self._eos_ids = eos_ids
        self._lock = Turn()
        self._running: dict[int, RunningRequest] = {}
        self._dropped: deque[RunningRequest] = deque()
        self._ids = count()
        self._changed: dict[RunningRequest, None] = {}  # since the listeners were called
        self._expiring: list[tuple[float, int]] = []  # a heap of (when, request id)
        weakref.finalize(self, self._lock.end)  # at exit

    def add(self, request: RunningRequest) -> None:
        """Errors: what the engine says against this request (UsageError)."""
        with self._lock, HeldInterrupts():
            self._abort_dropped()
            if request.done:  # dropped before it came in
                return
            request.start(next(self._ids))
            watched = request.watched
            strategy, make = self.speculation.strategy_of(request.params, request.cache_salt)
            watch = None if watched is None else watched.watch
            if request.record is not None:
                watch = request.record.watching(watch)
            asked = Request(
                request.request_id,
                request.run_ids,
                request.params,
                self._eos_ids,
                strategy=strategy,
                companion_ids=request.companion_ids,
                salt=request.cache_salt if watched is None else watched.salt(request.cache_salt),
                make=make,
                watch=watch,
            )
            self._engine.add(asked)
            if request.record is not None:
                request.record.begin(request, asked)
            self._running[request.request_id] = request
            if request.expires is not None:
                heappush(self._expiring, (request.expires, request.request_id))

    def advance(self, request: RunningRequest) -> None:
        """One forward pass for everybody, unless another thread's brought `request` something meanwhile."""
        with self._lock:
            if request.chunks or request.done:
                return
            with HeldInterrupts():
                self._pass()

    @property
    def last_pass(self) -> Pass:
        """The newest forward pass."""
        return self._engine.last_pass

    def step(self) -> None:
        """One forward pass, if there is something to compute; what was dropped or has expired ends before it."""
        with self._lock, HeldInterrupts():
            self._pass()

    @property
    def contended(self) -> bool:
        """Whether another thread waits for the engine."""
        return self._lock.contended

    def resume(self, request: RunningRequest) -> None:
        """A request that was paused because nobody read its chunks goes on."""
        with self._lock, HeldInterrupts():
            if request.paused:
                request.paused = False
                self._engine.resume(request.request_id)

    def fail(self, request: RunningRequest, error: Exception) -> None:
        """End it with this error."""
        with self._lock, HeldInterrupts():
            request.error = error
            self._abort(request, "error")
            self._tell()

    def _pass(self) -> None:
        self._abort_dropped()
        self._end_expired()
        try:
            for event in self._engine.step():
                owner = self._running.get(event.request_id)
                if owner is not None:
                    self._hand_over(event, owner)
                    if owner.listener is not None:
                        self._changed[owner] = None
        finally:
            self._tell()

    def _tell(self) -> None:
        """Pauses whose chunks nobody reads, and calls the listeners of all to whom something happened."""
        changed, self._changed = self._changed, {}
        for request in changed:
            if 0 < request.most_unread <= len(request.chunks) and not request.paused and not request.done:
                request.paused = self._engine.pause(request.request_id)
            if request.listener is not None:
                request.listener()

    # --- held sequences -------------------------------------------------------------------------------
    def hold(self, ids: Iterable[int], *, salt: Hashable = None, watch: Watch | None = None) -> Held:
        """A sequence to be driven by hand; nothing is computed yet. salt: cached prefixes are shared among equal
        salts only. watch: who looks at its rows, or changes them. Errors: UsageError, ContextOverflowError."""
        with self.exclusive():
            return self._held.hold(ids, salt=salt, watch=watch, guard=self.exclusive)

    def evaluate(self, held: Iterable[Held], on_rows: Rows | None = None) -> list[Float32]:
        """All of them catch up, in passes shared with each other and with whatever else runs.

        Returns for each its logits, float32 [positions wanted, vocabulary]: of the last token, or from its
        `first_logit` on. on_rows: takes the rows as they come in place of that (the result is []), so that long
        inputs need no [tokens, vocabulary] array; it is called amid a pass and must not call the engine.
        An error, Ctrl-C too, stops the evaluation; the sequences stay usable, with what was computed.
        """
        evaluations: list[Evaluation] = []
        try:
            with self.exclusive():
                evaluations = self._held.begin(held, on_rows)
            for evaluation in evaluations:
                while not evaluation.done:
                    self._advance_evaluation(evaluation)
                if evaluation.error is not None:
                    raise evaluation.error
        except BaseException:
            with self.exclusive():
                for evaluation in evaluations:
                    self._held.cancel(evaluation)
            raise
        return [evaluation.rows for evaluation in evaluations if evaluation.rows is not None]

    def snapshot(self, held: Sequence[Held]) -> Snapshot:
        """A copy of their keys and values. UsageError: one is closed, or being evaluated."""
        with self.exclusive():
            return take_snapshot(self._engine, held)

    def take_cached(self, held: Held) -> None:
        """A new sequence gets what the prefix cache has of it; nothing is computed."""
        with self.exclusive():
            take_cached(self._engine, held)

    def put_back(self, held: Held, table: Sequence[int], num_computed: int, arrays: Sequence[Bytes]) -> None:
        """What `snapshot` gave of a sequence, to one of the same tokens that is new."""
        with self.exclusive():
            put_back(self._engine, held, table, num_computed, arrays)

    def block_bytes(self) -> list[int]:
        """Bytes of one block in each tensor of the KV cache."""
        return block_bytes(self._engine.cache)

    def _advance_evaluation(self, evaluation: Evaluation) -> None:
        with self._lock:
            if not evaluation.done:  # another thread's pass may have done it
                with HeldInterrupts():
                    self._pass()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """No pass runs meanwhile: for who calls the model's operations himself."""
        with self._lock, HeldInterrupts():
            yield

    def abort(self, request: RunningRequest) -> None:
        """End it where it still runs; its memory is free at once."""
        with self._lock, HeldInterrupts():
            self._abort(request)
            self._tell()

    def drop(self, request: RunningRequest) -> None:
        """As `abort`, at the next occasion: safe from anywhere, even a finaliser amid a pass."""
        self._dropped.append(request)

    def abort_all(self) -> None:
        with self._lock, HeldInterrupts():
            for request in list(self._running.values()):
                self._abort(request)
            self._tell()

    def close(self) -> None:
        """Aborts all; held sequences answer with UsageError from here on."""
        self.abort_all()
        with self.exclusive():
            self._held.close()
            del self._engine  # whoever still has a held sequence does not keep the cache

    def logits(self, token_ids: Sequence[int]) -> Float32:
        """float32 [positions, vocabulary], computed in passes shared with whatever else runs."""
        held = self.hold(token_ids)
        held.first_logit = 0
        try:
            return self.evaluate([held])[0]
        finally:
            held.close()

    def _hand_over(self, event: TokenEvent, owner: RunningRequest) -> None:
        try:
            if owner.take(event):
                self._engine.finish(owner.request_id, event.sample_index, "stop")
        except Exception as error:  # of this request's text: the others go on
            owner.error = error
            self._abort(owner)
        if owner.done:
            self._running.pop(owner.request_id, None)
            self.speculation.remember(owner.output_ids, owner.cache_salt)

    def _abort_dropped(self) -> None:
        while self._dropped:
            self._abort(self._dropped.popleft())

    def _end_expired(self) -> None:
        """Ends the requests whose deadline has passed; looked at before each pass."""
        while self._expiring and self._expiring[0][0] <= perf_counter():
            request = self._running.get(heappop(self._expiring)[1])
            if request is not None:
                self._abort(request, "deadline")

    def _abort(self, request: RunningRequest, reason: str = "abort") -> None:
        if self._running.pop(request.request_id, None) is not None:
            self._engine.abort(request.request_id)
        if not request.done:
            request.abort(reason)
            if request.listener is not None:
                self._changed[request] = None
