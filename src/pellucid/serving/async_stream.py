"""A request in the hands of a coroutine: awaited whole, or read as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from pellucid.errors import RunFileError, UsageError
from pellucid.outputs import Chunk, GenerationResult

if TYPE_CHECKING:
    from pellucid.serving.driver import Driver
    from pellucid.serving.running import RunningRequest
    from pellucid.serving.worker import Mailbox, Worker


class AsyncRequest:
    """One request, one event loop, one waiting coroutine at most."""

    def __init__(
        self,
        request: RunningRequest,
        driver: Driver,
        worker: Worker,
        mailbox: Mailbox,
        leave: Callable[[], None],
    ) -> None:
        """leave: gives the places in the queue back; called once, from whatever thread the request ends in."""
        self.request = request
        self._driver = driver
        self._worker = worker
        self._mailbox = mailbox
        self._leave: Callable[[], None] | None = leave
        self._waiter: asyncio.Future[None] | None = None
        request.listener = self._changed
        worker.submit(request)

    @property
    def awaited(self) -> bool:
        return self._waiter is not None

    def cancel(self) -> None:
        """Ends it where it still runs: its blocks are free before the next pass begins."""
        self._end()
        if not self.request.done:
            self._driver.drop(self.request)
            self._worker.wake()

    async def changed(self) -> None:
        """Until the engine has something new of the request."""
        if self.request.paused:
            self._worker.resume(self.request)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def has_read(self) -> None:
        """A chunk was taken: a request that was paused for its reader may go on."""
        request = self.request
        if request.paused and len(request.chunks) <= request.most_unread // 2:
            self._worker.resume(request)

    def _changed(self) -> None:
        """Called by whoever drives the engine."""
        if self.request.done:
            self._end()
        if not self._mailbox.post(self._wake) and not self.request.done:
            self._driver.drop(self.request)  # its event loop is gone

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class AsyncStream(AsyncIterator[Chunk]):
    """Chunks of one request, as they come, for one reader.

        async with allm.stream("Once upon a time") as stream:
            async for chunk in stream:
                print(chunk.text, end="", flush=True)
        stream.result

    It enters the queue when it is first read (or by `async with`). It runs ahead of its reader by at most
    max_unread chunks, then it pauses, and others may use its memory. Leaving the `async with`, `aclose`, dropping
    the last reference or cancelling the reading task ends it; the text so far stays in `result`.
    """

    def __init__(self, enter: Callable[[], Awaitable[AsyncRequest]]) -> None:
        self._enter = enter
        self._running: AsyncRequest | None = None
        self._closed = False
        self._told = False  # its error has been raised

    async def _begin(self) -> AsyncRequest:
        if self._running is None:
            if self._closed:
                raise StopAsyncIteration
            self._running = await self._enter()
        return self._running

    async def __anext__(self) -> Chunk:
        running = await self._begin()
        request = running.request
        if running.awaited:
            raise UsageError("another task reads this stream; give each task a stream of its own")
        try:
            while True:
                done = request.done  # before looking for chunks: the last one comes before the end
                if request.chunks:
                    chunk = request.chunks.popleft()
                    running.has_read()
                    return chunk
                if done:
                    break
                await running.changed()
        except BaseException:
            running.cancel()
            raise
        if request.error is not None:
            self._told = True
            raise request.error
        raise StopAsyncIteration

    @property
    def result(self) -> GenerationResult:
        """All that was generated so far; whole once the iteration has ended. UsageError: it was never read."""
        if self._running is None:
            raise UsageError("this stream was not read yet; read it first, or enter it with `async with`")
        return self._running.request.result()

    async def aclose(self) -> None:
        """End what still runs. Chunks that were not read are dropped; `result` keeps their text. RunFileError: it is
        recorded, and not all of it could be written."""
        self._closed = True
        running = self._running
        if running is None:
            return
        running.cancel()
        while not running.request.done and not running.awaited:
            await running.changed()
        running.request.chunks.clear()
        error = running.request.error
        if isinstance(error, RunFileError) and not self._told:
            self._told = True
            raise error

    async def __aenter__(self) -> AsyncStream:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._running is not None:
            self._running.cancel()
