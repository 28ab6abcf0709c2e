"""One request in flight: tokens become text, stop strings are found, time and tokens are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from pellucid.errors import PellucidError
from pellucid.outputs import (
    Alternative,
    Chunk,
    Constrained,
    Counts,
    DraftPass,
    Drop,
    GenerationResult,
    Sample,
    SpeculationCounts,
    Timings,
    TokenLogprobs,
)
from pellucid.settings import Settings
from pellucid.text.continuation import ContinuationText

if TYPE_CHECKING:
    from pellucid.engine.engine import TokenEvent
    from pellucid.engine.request import PassDrafts
    from pellucid.front.looking import Looking, Watched
    from pellucid.front.recorder import RequestRecord
    from pellucid.glass.captured import Captured
    from pellucid.sampling.params import SamplingParams
    from pellucid.sampling.sampler import ConstraintStep
    from pellucid.text.tokenizer import Tokenizer


class _RunningSample:
    """The text side of one sample."""

    def __init__(self, index: int, tokenizer: Tokenizer, params: SamplingParams) -> None:
        self.index = index
        self.continuation = ContinuationText(tokenizer, params.stop)
        self.token_ids: list[int] = []
        self.text: list[str] = []
        self.logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self.finish_reason: str | None = None
        self.stop_id: int | None = None
        self.drops: list[Drop] = []
        self.from_draft: list[bool] = []
        self.draft_passes: list[DraftPass] = []

    @property
    def stop_string(self) -> str | None:
        return self.continuation.stop_string

    @property
    def stop_match(self) -> str | int | None:
        return self.stop_string if self.stop_string is not None else self.stop_id

    def result(self, captured: Captured | None) -> Sample:
        text = "".join(self.text)
        return Sample(
            self.index,
            text,
            self.token_ids,
            self.finish_reason,
            self.stop_match,
            self.logprobs,
            tuple(self.drops),
            captured,
            tuple(self.from_draft),
            tuple(self.draft_passes),
        )


class RunningRequest:
    """Collects one request's events. Knows no engine: `take` says when the engine has to end a sample."""

    def __init__(
        self,
        prompt: str | None,
        prompt_ids: list[int],
        params: SamplingParams,
        tokenizer: Tokenizer,
        settings: Settings,
        tokenize_seconds: float,
        keep_chunks: bool,
        cache_salt: str | None = None,
        prompt_drop: Drop | None = None,
        record: RequestRecord | None = None,
    ) -> None:
        """prompt_ids: as given; prompt_drop: what overflow "slide" takes out of them before they are run."""
        self.request_id = -1  # given by `start`
        self.prompt = prompt
        self.prompt_ids = self.run_ids = prompt_ids
        self.companion_ids: list[int] | None = None  # the negative prompt of guidance
        self.params = params
        self.settings = settings
        self.cache_salt = cache_salt
        self.record = record
        self.chunks: deque[Chunk] = deque()
        self.listener: Callable[[], None] | None = None  # called after each pass that brought something
        self.most_unread = 0  # chunks from which the request pauses until they are read; 0: never
        self.paused = False
        self.error: Exception | None = None
        self.looking: Looking | None = None  # what it captures and changes,
        self.watched: Watched | None = None  # and how
        self._keep_chunks = keep_chunks  # for a stream
        self._tokenizer = tokenizer
        self._samples = [_RunningSample(index, tokenizer, params) for index in range(params.n)]
        if prompt_drop is not None:
            start, stop = prompt_drop.start, prompt_drop.start + prompt_drop.count
            self.run_ids = prompt_ids[:start] + prompt_ids[stop:]
            for sample in self._samples:
                sample.drops.append(prompt_drop)
        self._num_running = params.n
        self._num_computed = 0
        self._num_reused = 0
        self._failures: dict[str, str] = {}  # of drafters
        self._tokenize_seconds = tokenize_seconds
        self._start = self._first = self._last = 0.0

    def start(self, request_id: int) -> None:
        """The engine is about to get the request: times count from here."""
        self.request_id = request_id
        self._start = self._first = self._last = perf_counter()

    @property
    def expires(self) -> float | None:
        """When its deadline is, on the clock of `perf_counter`; None: never."""
        return None if self.params.deadline is None else self._start + self.params.deadline

    @property
    def done(self) -> bool:
        return self._num_running == 0

    @property
    def output_ids(self) -> list[list[int]]:
        """The tokens of each sample so far."""
        return [sample.token_ids for sample in self._samples]

    def take(self, event: TokenEvent) -> bool:
        """One event of this request. True: a stop string is complete, and the engine must end this sample."""
        sample = self._samples[event.sample_index]
        if sample.finish_reason is not None:
            return False  # ended here by a stop string; the engine's own word for it comes after
        self._note_progress(event)
        if event.drafts is not None:
            self._note_drafts(sample, event.drafts)
        text, reason, logprobs, pushed = "", event.finish_reason, None, 0.0
        if event.error is not None:
            self.error = PellucidError(event.error)
        if event.token_id is not None:
            sample.token_ids.append(event.token_id)
            sample.from_draft.append(event.from_draft)
            if reason not in ("eos", "stop"):  # the text shows no ending token
                text = sample.continuation.push(event.token_id)
                pushed = perf_counter() - self._last
            logprobs = self._logprobs(event)
            if sample.logprobs is not None and logprobs is not None:
                sample.logprobs.append(logprobs)
        if reason is not None and sample.stop_string is None:
            text += sample.continuation.flush()
        if sample.stop_string is not None:
            reason = "stop"
        elif reason == "stop":
            sample.stop_id = event.stop
        drop = None
        if event.dropped is not None and reason is None:
            drop = Drop(len(sample.token_ids), *event.dropped)
            sample.drops.append(drop)
        if self.record is not None:
            if event.token_id is not None:
                self.record.token(event, pushed, drop, self._last)
            if reason is not None:
                self.record.end(self, sample.index, reason, sample.stop_match)
        self._emit(sample, text, event, logprobs, reason, drop)
        return sample.stop_string is not None and event.finish_reason is None

    def abort(self, reason: str = "abort") -> None:
        """End every sample that is still running; its text so far stays. It ends also where its run file cannot be
        written: `error` then tells."""
        for sample in self._samples:
            if sample.finish_reason is None:
                sample.text.append(text := sample.continuation.flush())
                sample.finish_reason = reason
                try:
                    if self.record is not None:
                        self.record.end(self, sample.index, reason, sample.stop_match)
                except PellucidError as error:
                    self.error = self.error or error
                if self._keep_chunks:
                    self.chunks.append(Chunk(text, None, sample.index, None, None, reason, sample.stop_match))
        self._num_running = 0

    def _emit(
        self,
        sample: _RunningSample,
        text: str,
        event: TokenEvent,
        logprobs: TokenLogprobs | None,
        reason: str | None,
        drop: Drop | None,
    ) -> None:
        sample.text.append(text)
        sample.finish_reason = reason
        if self._keep_chunks:
            token, place = event.token_id, event.position
            self.chunks.append(
                Chunk(
                    text,
                    token,
                    sample.index,
                    place,
                    logprobs,
                    reason,
                    sample.stop_match,
                    drop,
                    event.from_draft,
                )
            )
        if (
            reason is not None
        ):  # last of all: whoever sees a request done, in another thread, finds all its chunks
            self._num_running -= 1

    def _note_drafts(self, sample: _RunningSample, told: PassDrafts) -> None:
        self._failures.update(told.failures)
        if told.drafted:
            passed = DraftPass(len(sample.token_ids), told.source, told.drafted, told.accepted, told.revised)
            sample.draft_passes.append(passed)

    def _note_progress(self, event: TokenEvent) -> None:
        self._last = perf_counter()
        if self._first == self._start:
            self._first = self._last
            self._num_computed, self._num_reused = event.num_computed, event.num_reused

    def _logprobs(self, event: TokenEvent) -> TokenLogprobs | None:
        found, token = event.logprobs, event.token_id
        if found is None or token is None:
            return None
        return TokenLogprobs(
            token,
            self._tokenizer.token_text(token),
            found.raw,
            found.processed,
            self._alternatives(found.top_raw),
            self._alternatives(found.top_processed),
            self._constrained(found.constraint),
        )

    def _constrained(self, step: ConstraintStep | None) -> Constrained | None:
        if step is None:
            return None
        return Constrained(
            step.allowed_logprob, step.wanted, self._tokenizer.token_text(step.wanted), step.forced
        )

    def _alternatives(self, pairs: tuple[tuple[int, float], ...]) -> tuple[Alternative, ...]:
        return tuple(Alternative(token, self._tokenizer.token_text(token), value) for token, value in pairs)

    def _captured(self, sample: _RunningSample) -> Captured | None:
        """What was captured of a sample; None: nothing was to be. CaptureError: a value was too large for the dtype."""
        if self.watched is None or self.watched.store is None:
            return None
        family = [self.watched.store, *self.watched.store.forks]
        store = (
            family[sample.index] if sample.index < len(family) else family[0]
        )  # ended before it was forked
        return store.captured([*self.run_ids, *sample.token_ids])

    def result(self) -> GenerationResult:
        samples = [sample.result(self._captured(sample)) for sample in self._samples]
        generated = sum(len(sample.token_ids) for sample in samples)
        started = self._first > self._start
        first, after = self._first - self._start, generated - sum(1 for s in samples if s.token_ids)
        timings = Timings(
            tokenize=self._tokenize_seconds,
            time_to_first_token=first if started else None,
            total=self._last - self._start,
            prefill_tokens_per_second=self._num_computed / first if started and self._num_computed else None,
            decode_tokens_per_second=after / (self._last - self._first) if after > 0 else None,
        )
        counts = Counts(len(self.run_ids), self._num_computed, self._num_reused, generated)
        return GenerationResult(
            self.prompt,
            self.prompt_ids,
            samples,
            counts,
            timings,
            self.settings,
            self._speculation(samples),
            () if self.looking is None else self.looking.interventions,
            self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        """What never came into effect, of each sample that has ended."""
        interventions = () if self.looking is None else self.looking.interventions
        store = None if self.watched is None else self.watched.store
        kept = None if store is None else store.span
        if not interventions and not self.params.force_at and kept is None:
            return ()
        from pellucid.glass.reach import notes

        found = []
        for sample in self._samples:
            if sample.finish_reason is not None:
                name = f"sample {sample.index}: " if len(self._samples) > 1 else ""
                steps, positions = len(sample.token_ids), self._most_positions(sample)
                told = notes(interventions, self.params.force_at, len(self.run_ids), positions, steps, kept)
                found += [name + line for line in told]
        return tuple(found)

    def _most_positions(self, sample: _RunningSample) -> int:
        """That it has had at a time: a context that slides loses some. The last token was never computed."""
        most, dropped = 0, 0
        for drop in sample.drops:
            if drop.after:
                most = max(most, len(self.run_ids) + drop.after - dropped)
                dropped += drop.count
        return max(most, len(self.run_ids) + max(0, len(sample.token_ids) - 1) - dropped)

    def times(self) -> dict[str, float | int | None]:
        """Seconds and positions so far, for a run file: without what follows from its steps."""
        return {
            "tokenize": self._tokenize_seconds,
            "time_to_first_token": self._first - self._start if self._first > self._start else None,
            "total": self._last - self._start,
            "computed": self._num_computed,
            "reused": self._num_reused,
        }

    def _speculation(self, samples: list[Sample]) -> SpeculationCounts | None:
        passes = [each for sample in samples for each in sample.draft_passes]
        if not passes and not self._failures:
            return None
        tokens = sum(len(sample.token_ids) for sample in samples)
        saved = sum(sum(sample.from_draft) for sample in samples)
        return SpeculationCounts(
            sum(each.drafted for each in passes),
            saved,
            len(passes),
            saved / tokens if tokens else 0.0,
            sum(each.revised for each in passes),
            tuple(self._failures.items()),
        )
