"""Engine: the one loop. Requests come in, each step is one forward pass, tokens come out.

It knows models, operations and strategies only as protocols, and no text. What a request gets depends on its
own tokens, parameters and seed alone: not on what else runs, on chunks, on cache hits, on preemption.
Not thread-safe: one thread calls it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from time import perf_counter
from typing import cast

import numpy as np

from pellucid.decoding.drafts.costs import PassCosts
from pellucid.engine.batch import BatchBuilder
from pellucid.engine.blocks import BlockPool
from pellucid.engine.held import HeldSequences
from pellucid.engine.limits import Limits
from pellucid.engine.live import LiveRequest, failure
from pellucid.engine.request import Pass, Request, TokenEvent, as_token_ids
from pellucid.engine.scheduler import Plan, Scheduler
from pellucid.engine.sequence import Sequence
from pellucid.engine.watching import Watching
from pellucid.errors import PellucidError, UsageError
from pellucid.models.base import Model
from pellucid.ops.base import Ops
from pellucid.sampling.sampler import Choice
from pellucid.types import Float32, Int32, Logits

__all__ = ["Engine", "Request", "TokenEvent"]


class Engine:
    """num_blocks blocks of block_size positions hold the keys and values of all sequences in kv_format, one of
    `ops.base.KV_FORMATS`. A pass computes at most prefill_chunk rows of sequences that are catching up, and one
    row (and its drafts) of every other, of at most max_sequences sequences at once; more requests wait, first
    come first served.

    context_length: the longest sequence, prompt and output. None: the model's, or what the blocks hold if
    that is less. UsageError if it is more than either.
    """

    def __init__(
        self,
        model: Model,
        ops: Ops,
        *,
        num_blocks: int,
        block_size: int = 32,
        kv_format: str = "f16",
        prefill_chunk: int = 128,
        max_sequences: int = 64,
        prefix_caching: bool = True,
        context_length: int | None = None,
    ) -> None:
        if prefill_chunk < 1 or max_sequences < 1:
            raise UsageError(
                f"expected prefill_chunk >= 1 and max_sequences >= 1, got {prefill_chunk} and {max_sequences}"
            )
        self.model = model
        self.pool = BlockPool(num_blocks, block_size, prefix_caching=prefix_caching)
        self.cache = ops.kv_cache(model.layers, num_blocks, block_size, kv_format)
        self.limits = Limits.of(
            model.vocabulary_size, model.context_length, num_blocks, block_size, context_length
        )
        self.context_length = self.limits.context_length
        self.scheduler = Scheduler(self.pool, prefill_chunk=prefill_chunk, max_sequences=max_sequences)
        self._builder = BatchBuilder(
            prefill_chunk + max_sequences,
            max_sequences,
            self.pool.blocks_for(self.context_length),
            block_size,
        )
        self.held = HeldSequences(self.pool, self.scheduler, self.limits)
        self._live: dict[Hashable, LiveRequest] = {}
        self._num_proposing = 0
        self._watching: Watching | None = None  # of the last pass
        self.last_pass = Pass(0, 0, 0)
        self.costs = PassCosts()

    # --- requests ---------------------------------------------------------------------------------------
    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, request: Request) -> None:
        """Queues a request. UsageError if its id is in use or a token id is not in the vocabulary;
        ContextOverflowError if the prompt, or the prompt and max_tokens, exceed the context."""
        if request.request_id in self._live:
            raise UsageError(f"request id {request.request_id!r} is in use; give each request its own")
        self.limits.check_request(request)
        live = LiveRequest.of(request, self.context_length)
        self._live[request.request_id] = live
        self._num_proposing += live.strategy.proposes
        for sequence in _members(live.sequences[0]):
            self.scheduler.add(sequence)

    def finish(self, request_id: Hashable, sample_index: int, reason: str = "stop") -> bool:
        """Ends one sample from outside, as for a stop string found in its text; no event follows, so `reason`
        is the caller's to report. False if the sample has ended already (or is unknown)."""
        live = self._live.get(request_id)
        found = [s for s in live.sequences if s.sample_index == sample_index] if live else []
        for sequence in found:
            self._end(sequence)
        return bool(found)

    def abort(self, request_id: Hashable) -> bool:
        """Ends all samples of a request, in any phase; no event follows. False if it has already ended."""
        live = self._live.get(request_id)
        for sequence in list(live.sequences) if live else []:
            self._end(sequence)
        return live is not None

    def pause(self, request_id: Hashable) -> bool:
        """Its samples stop where they are. They keep their blocks while nobody needs them; what others take is
        computed again. False if it has ended."""
        live = self._live.get(request_id)
        for sequence in live.sequences if live else []:
            sequence.drafts = []
            for member in _members(sequence):
                self.scheduler.park(member)
        return live is not None

    def resume(self, request_id: Hashable) -> bool:
        """What was paused goes on, with the same tokens as if it had not been. False if it has ended."""
        live = self._live.get(request_id)
        for sequence in live.sequences if live else []:
            for member in _members(sequence):
                if member.pair is None or not member.pair.waits(member):
                    self.scheduler.add(member)
        return live is not None

    def _end(self, sequence: Sequence) -> None:
        if sequence.watch is not None:  # nothing is computed of its last token; rejected drafts go
            sequence.watch.cut(sequence.num_tokens - 1)
            self._watching = None  # what it took is its owner's alone from here on
            self._builder.forget(sequence)
        for member in _members(sequence):
            self.scheduler.remove(member)
        live = self._live[sequence.request_id]
        live.sequences.remove(sequence)
        if not live.sequences:
            self._num_proposing -= live.strategy.proposes
            del self._live[sequence.request_id]

    # --- the loop ---------------------------------------------------------------------------------------
    def step(self) -> list[TokenEvent]:
        """One forward pass for whoever is behind; the tokens that it made possible. [] while prompts are
        long, or if there is no work. If the model raises, nothing has advanced and the step can be
        repeated."""
        events: list[TokenEvent] = []
        begun = perf_counter()
        self.held.forget_dropped()
        if self._num_proposing:
            self._propose(events)
        plan = self._prepared(self.scheduler.schedule(), events)
        scheduled = perf_counter()
        logits = self._forward(plan)
        if logits is None:
            return events
        computed = perf_counter()
        made_by = Pass(self.last_pass.number + 1, sum(rows for _, rows in plan), len(plan))
        made_by.schedule, made_by.forward = scheduled - begun, computed - scheduled
        self.last_pass = made_by
        ready: list[tuple[Sequence, int, int]] = []  # whose logits there are, and which rows
        row = 0
        for sequence, rows in plan:
            start = sequence.num_computed
            wanted = start + rows - max(start, sequence.first_wanted)
            sequence.advance(rows)
            self.pool.commit(sequence)
            if wanted > 0:
                ready.append((sequence, row, row + wanted))
                row += wanted
        for sequence, first, stop in ready:
            part = logits[first:stop]
            if isinstance(part, np.ndarray) and self.held.take(sequence, part):
                continue
            self._advance(sequence, part, events)
        for sequence, _, _ in ready:
            if sequence.pair is not None and sequence.pair.waits(sequence):
                self.scheduler.park(sequence)  # until the other one of its pair is there
        made_by.choose = perf_counter() - computed
        if row == made_by.num_rows:  # every row brought a choice: no prompts
            self.costs.note(row, perf_counter() - begun)
        return events

    def _forward(self, plan: Plan, *, all_logits: bool = False) -> Logits | None:
        copies = self.pool.take_copies()
        if copies:
            self.cache.copy_blocks(copies)
        if not plan:
            return None
        choice_only = not all_logits and all(self._chooses(sequence) for sequence, _ in plan)
        watch = self._watching = Watching.of(plan, self._watching, all_logits=all_logits)
        keep_rows = watch is not None and watch.keeps_rows(len(self.model.layers))
        batch = self._builder.build(
            plan, all_logits=all_logits, choice_only=choice_only, watch=watch, keep_rows=keep_rows
        )
        return self.model(batch, self.cache)

    def _prepared(self, plan: Plan, events: list[TokenEvent]) -> Plan:
        """The plan without the sequences whose watch cannot take what it would compute; their requests end."""
        refused = []
        for sequence, rows in plan:
            if sequence.watch is not None:
                try:
                    sequence.watch.prepare(sequence.num_computed, sequence.num_computed + rows)
                except PellucidError as error:
                    refused.append((sequence, error))
        for sequence, problem in refused:
            live = self._live.get(sequence.request_id)
            if not self.held.fail(sequence, problem) and live is not None:
                self._fail(live, problem, events)
        return [part for part in plan if part[0] in self.scheduler.running] if refused else plan

    def _chooses(self, sequence: Sequence) -> bool:
        live = self._live.get(sequence.request_id)
        return live is not None and live.chooses

    def _propose(self, events: list[TokenEvent]) -> None:
        """Asks for drafts where the next pass begins at the last token."""
        self.costs.rows = self.scheduler.num_rows
        for sequence in self.scheduler.running.copy():
            live = self._live.get(sequence.request_id)
            if live is None or not live.strategy.proposes or sequence.pair is not None:
                continue
            try:
                drafts = live.drafts(sequence, self.model.vocabulary_size)
                sequence.draft(drafts)
                self.costs.rows += len(drafts)
            except Exception as error:  # a strategy may be anybody's code: an error ends its request alone
                self._fail(live, error, events)

    def _advance(self, sequence: Sequence, logits: Logits, events: list[TokenEvent]) -> None:
        """Chooses the next tokens of a sequence that has caught up; logits [1 + drafts, vocabulary]."""
        live = self._live.get(sequence.request_id)
        if live is None:
            return  # an error has ended its request in this very pass
        pair = sequence.pair
        if pair is not None:
            if not pair.take(sequence, cast(Float32, logits)):
                return
            sequence, logits = pair.leader, cast(Float32, pair.row)[None]
        samples = [sequence]
        if not live.forked:
            live.forked = True
            samples += self._fork(live, sequence)
        for sample in samples:
            drafts, sample.drafts = sample.drafts, []
            try:
                choices = live.choices(sample, drafts, logits)
            except Exception as error:  # processors may be anybody's code: an error ends this request alone
                self._fail(live, error, events)
                return
            self._append(live, sample, drafts, choices, events)

    def _fork(self, live: LiveRequest, parent: Sequence) -> list[Sequence]:
        """The other samples of a request, once its prompt is computed."""
        children = [parent.fork(i) for i in range(1, live.request.params.n)]
        for child in children:
            self._share(parent, child)
        live.sequences += children
        if parent.pair is None:
            self.scheduler.add_forks(parent, children)
            return children
        for child in children:
            companion = parent.pair.fork(child).companion
            self._share(parent.pair.companion, companion)
            for member in (child, companion):
                self.scheduler.park(member)
        return children

    def _share(self, parent: Sequence, child: Sequence) -> None:
        self.pool.fork(parent, child)
        child.num_reused = child.num_computed

    def _append(
        self,
        live: LiveRequest,
        sequence: Sequence,
        drafts: list[int],
        choices: list[Choice],
        events: list[TokenEvent],
    ) -> None:
        """Appends the choices; all before the last are drafts, whose keys and values are computed already."""
        told = live.told(sequence, drafts, choices)
        for i, (token, logprobs) in enumerate(choices):
            sequence.num_computed += i > 0
            from_draft = i < len(drafts) and token == drafts[i]
            event = live.append(
                sequence, token, logprobs, self.last_pass, from_draft, told if i == 0 else None
            )
            events.append(event)
            if event.finish_reason is not None:
                self._end(sequence)
                return
            if sequence.pair is not None:
                for member in _members(sequence):
                    if member not in self.scheduler.running:
                        self.scheduler.add(member)
            if event.dropped is not None:
                self._slide(sequence, *event.dropped)
                return
        if len(choices) > 1:
            self.pool.commit(sequence)

    def _slide(self, sequence: Sequence, start: int, count: int) -> None:
        """Tokens [start, start + count) go; those after them are computed again, at their new positions, as of a
        sequence that never had others."""
        self.pool.truncate(sequence, min(start, sequence.num_computed))
        sequence.drop(start, count)

    def _fail(self, live: LiveRequest, error: Exception, events: list[TokenEvent]) -> None:
        for sequence in list(live.sequences):
            events.append(failure(sequence, error))
            self._end(sequence)

    # --- scoring ----------------------------------------------------------------------------------------
    def logits(self, token_ids: Iterable[int] | Int32) -> Float32:
        """float32 [positions, vocabulary] of every position, through the same blocks, chunks and passes as
        generation.

        Running requests wait meanwhile, and may be recomputed if their blocks are needed; their output is
        unaffected. ContextOverflowError if there are more tokens than the context holds.
        """
        ids = as_token_ids(token_ids)
        self.limits.check_score(ids)
        sequence = Sequence(ids)
        out: Float32 = np.empty((len(ids), self.model.vocabulary_size), np.float32)
        try:
            while sequence.num_behind:
                start = sequence.num_computed
                rows = min(sequence.num_behind, self.scheduler.prefill_chunk)
                self.scheduler.make_room(sequence, start + rows)
                logits = self._forward([(sequence, rows)], all_logits=True)
                out[start : start + rows] = cast(Float32, logits)  # bounds come only where they are asked for
                sequence.num_computed += rows
                self.pool.commit(sequence)
        finally:
            self.pool.free(sequence)
        return out


def _members(sequence: Sequence) -> tuple[Sequence, ...]:
    """It, and its companion."""
    return (sequence,) if sequence.pair is None else (sequence.pair.leader, sequence.pair.companion)
