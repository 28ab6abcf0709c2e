"""AsyncLLM: many coroutines, one engine."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from pellucid.errors import QueueFullError, UsageError
from pellucid.front.loading import DEFAULT_MODEL
from pellucid.front.looking import looking_of
from pellucid.llm import LLM
from pellucid.outputs import GenerationResult
from pellucid.prompts import check_count, check_template_variables, split_prompts
from pellucid.serving.async_stream import AsyncRequest, AsyncStream
from pellucid.serving.worker import Mailbox, Worker

if TYPE_CHECKING:
    from pellucid.front.recorder import Recorder
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import Intervention
    from pellucid.sampling.params import SamplingParams
    from pellucid.serving.running import RunningRequest

    Record = Recorder | str | os.PathLike[str] | None

_LONG_TEXT = 1 << 14  # characters from which a text is tokenised outside of the event loop
MAX_WAITING = 256
MAX_UNREAD = 1024


class _Asked(NamedTuple):
    """The arguments of `LLM.generate` but the prompt."""

    params: SamplingParams | None
    model_defaults: bool
    parse_special: bool
    cache_salt: str | None
    record: Record
    capture: Capture | None
    interventions: Sequence[Intervention]
    overrides: dict[str, Any]


class AsyncLLM:
    """A loaded model for asyncio.

        async with AsyncLLM("smollm2-135m-instruct") as allm:
            result = await allm.generate("The best way to learn a new skill is", max_tokens=32)

    The requests of all callers share the passes of one engine, which its own thread drives; while there are none
    that thread sleeps. What a request gets is what `LLM` gives, bit for bit. Calls may come from several event
    loops and threads. Cancelling a call (a task's cancel, asyncio.timeout, a broken TaskGroup) ends its request:
    its memory is free before the next pass. An error of one request reaches its own caller only.

    Those that generate get a row in every pass; long prompts are computed in chunks beside them, first come first
    served. A request beyond max_sequences waits in line; beyond max_waiting more it is refused.
    """

    def __init__(
        self,
        model: LLM | str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        max_waiting: int = MAX_WAITING,
        max_unread: int = MAX_UNREAD,
        **options: Any,
    ) -> None:
        """model: an open LLM, which stays open after `close`, or what LLM takes, with its options.

        max_waiting: samples that may be in line, beside the max_sequences of a pass. max_unread: chunks by which a
        stream runs ahead of its reader.
        Errors: those of LLM.
        """
        check_count("max_waiting", max_waiting, 0)
        check_count("max_unread", max_unread, 1)
        if isinstance(model, LLM) and options:
            raise UsageError(
                f"{', '.join(options)}: options of a model that is loaded already; give them to LLM"
            )
        self.llm = model if isinstance(model, LLM) else LLM(model, **options)
        self._owned = not isinstance(model, LLM)
        self._max_unread = max_unread
        self._max_sequences: int = self.llm._need().engine.scheduler.max_sequences
        self._max_waiting = max_waiting
        self._taken = 0
        self._lock = threading.RLock()
        self._closing = False
        self._worker = Worker(self.llm._open_driver())
        self._mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = (
            weakref.WeakKeyDictionary()
        )
        weakref.finalize(self, self._worker.stop, False)

    async def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        cache_salt: str | None = None,
        record: Record = None,
        capture: Capture | None = None,
        interventions: Sequence[Intervention] = (),
        **overrides: Any,
    ) -> GenerationResult:
        """Continue one prompt. Arguments and errors: those of `LLM.generate`, and QueueFullError."""
        asked = _Asked(
            params, model_defaults, parse_special, cache_salt, record, capture, interventions, overrides
        )
        running = await self._enter(self._one(prompt, "generate"), asked, False)
        request = running.request
        try:
            while not request.done:
                await running.changed()
        except BaseException:
            running.cancel()
            raise
        if request.error is not None:
            raise request.error
        return request.result()

    def stream(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        cache_salt: str | None = None,
        record: Record = None,
        capture: Capture | None = None,
        interventions: Sequence[Intervention] = (),
        **overrides: Any,
    ) -> AsyncStream:
        """Continue one prompt, chunk by chunk. Arguments: those of `LLM.generate`. Its errors, and QueueFullError,
        come with the first read."""
        asked = _Asked(
            params, model_defaults, parse_special, cache_salt, record, capture, interventions, overrides
        )
        return AsyncStream(partial(self._enter, self._one(prompt, "stream"), asked, True))

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        template_variables: Mapping[str, Any] | None = None,
        model_defaults: bool = False,
        cache_salt: str | None = None,
        **overrides: Any,
    ) -> GenerationResult:
        """The assistant's next message. Arguments and errors: those of `LLM.chat`, and QueueFullError."""
        ids = self._render(messages, template_variables)
        return await self.generate(
            ids, params, model_defaults=model_defaults, cache_salt=cache_salt, **overrides
        )

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        template_variables: Mapping[str, Any] | None = None,
        model_defaults: bool = False,
        cache_salt: str | None = None,
        **overrides: Any,
    ) -> AsyncStream:
        """`chat`, as a stream."""
        ids = self._render(messages, template_variables)
        return self.stream(ids, params, model_defaults=model_defaults, cache_salt=cache_salt, **overrides)

    @property
    def num_requests(self) -> int:
        """Samples that run or wait in line."""
        return self._taken

    async def close(self, *, drain: bool = False) -> None:
        """No request is taken any more. Those that run are ended (finish reason "abort", text kept), or with
        drain first finished; streams must then be read. A model that was loaded here is closed."""
        self._closing = True
        self._worker.stop(drain)
        await asyncio.get_running_loop().run_in_executor(None, self._worker.join)
        if self._owned:
            self.llm.close()

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Async{self.llm!r}"

    # --- one request ----------------------------------------------------------------------------------
    def _one(self, prompt: str | Sequence[int], name: str) -> str | list[int]:
        prompts, several = split_prompts(prompt)
        if several:
            raise UsageError(
                f"AsyncLLM.{name} takes one prompt; await one call for each, as asyncio.gather does"
            )
        return prompts[0]

    def _render(
        self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any] | None
    ) -> list[int]:
        return self.llm.render_chat(messages, **check_template_variables(variables))

    async def _enter(self, prompt: str | list[int], asked: _Asked, streamed: bool) -> AsyncRequest:
        """In the engine's line. The places are taken before anything is computed for the request."""
        leave = self._take_places(asked)
        try:
            prepare = partial(self._prepare, prompt, asked, streamed)
            long = isinstance(prompt, str) and len(prompt) >= _LONG_TEXT
            slow = long or asked.record is not None  # a run file begins with a digest of the model
            request = await asyncio.to_thread(prepare) if slow else prepare()
            return AsyncRequest(request, self.llm._open_driver(), self._worker, self._mailbox(), leave)
        except BaseException:
            leave()
            raise

    def _prepare(self, prompt: str | list[int], asked: _Asked, streamed: bool) -> RunningRequest:
        (look,) = looking_of(asked.capture, asked.interventions, 1)
        request = self.llm._prepare(
            prompt,
            asked.params,
            asked.model_defaults,
            asked.parse_special,
            asked.overrides,
            streamed,
            asked.cache_salt,
            self.llm._recorder(asked.record),
            look,
        )
        request.most_unread = self._max_unread if streamed else 0
        return request

    def _take_places(self, asked: _Asked) -> Callable[[], None]:
        """As many places as samples. QueueFullError: there are not so many. Returns what gives them back."""
        wanted = asked.overrides.get("n", getattr(asked.params, "n", 1))
        places = wanted if isinstance(wanted, int) and wanted > 0 else 1  # what is no number is refused later
        limit = self._max_sequences + self._max_waiting
        with self._lock:
            if self._closing:
                raise UsageError("this AsyncLLM is closed; make a new one")
            if self._taken + places > limit:
                samples = f"{places} sample{'s' if places > 1 else ''}"
                raise QueueFullError(
                    f"the queue is full: {samples} asked for, {self._taken} of {limit} places taken (max_sequences "
                    f"{self._max_sequences} + max_waiting {self._max_waiting}); try again later or raise max_waiting"
                )
            self._taken += places
        return _Once(partial(self._give_back, places))

    def _give_back(self, places: int) -> None:
        with self._lock:
            self._taken -= places

    def _mailbox(self) -> Mailbox:
        loop = asyncio.get_running_loop()
        with self._lock:
            return self._mailboxes.setdefault(loop, Mailbox(loop))


class _Once:
    """A call that counts once, whichever thread comes first."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._calls = [call]

    def __call__(self) -> None:
        try:
            self._calls.pop()()
        except IndexError:
            return
