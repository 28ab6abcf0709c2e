"""The thread that drives the engine for asynchronous callers, and what they share with it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pellucid.serving.driver import Driver
    from pellucid.serving.running import RunningRequest

_CLOSED = "this AsyncLLM is closed; make a new one"
_GIVE_WAY = 50e-6  # seconds in which a thread that waits for the engine takes it


class Worker:
    """Runs passes while one of its requests can go on, and sleeps while none can.

    `submit`, `wake` and `stop` may be called from any thread; `wake` also from a finaliser.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()  # its put() is reentrant
        self._mine: set[RunningRequest] = set()
        self._stopping = self._draining = self._ended = False
        self._thread = threading.Thread(target=self._run, name="pellucid-engine", daemon=True)
        self._started = False
        self._lock = threading.Lock()

    def submit(self, request: RunningRequest) -> None:
        """The request enters the engine before the next pass; errors of that become its own."""
        with self._lock:
            if self._ended:
                self._driver.fail(request, UsageError(_CLOSED))
                return
            self._inbox.put(lambda: self._add(request))
            if not self._started:
                self._started = True
                self._thread.start()

    def resume(self, request: RunningRequest) -> None:
        self._inbox.put(lambda: self._driver.resume(request))

    def wake(self) -> None:
        self._inbox.put(_nothing)

    def stop(self, drain: bool) -> None:
        """The thread ends: once its requests are done, or (drain False) at once, ending them."""
        self._inbox.put(lambda: self._stop(drain))

    def join(self) -> None:
        if self._started:
            self._thread.join()

    # --- in the thread --------------------------------------------------------------------------------
    def _run(self) -> None:
        while True:
            self._take_orders()
            self._mine = {request for request in self._mine if not request.done}
            if self._stopping and not self._mine and self._end():
                return
            try:
                self._driver.step()
            except Exception as error:  # of a pass: nobody's own, so everybody's
                for request in self._mine:
                    self._driver.fail(request, error)
            if self._driver.contended:
                sleep(_GIVE_WAY)

    def _take_orders(self) -> None:
        """Does what was asked for meanwhile; waits where there is nothing else to do."""
        while True:
            try:
                running = [request for request in self._mine if not request.done]
                if (self._stopping and not running) or any(not request.paused for request in running):
                    order = self._inbox.get_nowait()
                else:
                    order = self._inbox.get(timeout=_until_deadline(running))
            except Empty:
                return
            order()

    def _add(self, request: RunningRequest) -> None:
        try:
            if self._stopping and not self._draining:
                raise UsageError(_CLOSED)
            self._driver.add(request)
            self._mine.add(request)
        except Exception as error:
            self._driver.fail(request, error)

    def _stop(self, drain: bool) -> None:
        self._stopping, self._draining = True, drain
        if not drain:
            for request in self._mine:
                self._driver.abort(request)

    def _end(self) -> bool:
        """Nobody may submit from here on. False: somebody just did."""
        with self._lock:
            self._ended = self._inbox.empty()
            return self._ended


def _until_deadline(requests: list[RunningRequest]) -> float | None:
    """Seconds until the first of their deadlines; None: there is none."""
    ends = [request.expires for request in requests if request.expires is not None]
    return max(0.0, min(ends) - perf_counter()) if ends else None


def _nothing() -> None:
    """Only wakes the thread, which then looks for itself."""


class Mailbox:
    """Wakes the waiters of one event loop: one call into the loop for all that a pass brought."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: deque[Any] = deque()
        self._called = False

    def post(self, wake: Callable[[], None]) -> bool:
        """From any thread: `wake` is called in the loop soon. False: the loop is closed."""
        if self._loop.is_closed():  # perhaps before it took the last call
            return False
        self._ready.append(wake)
        if not self._called:
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                self._called = False
                return False
        return True

    def _deliver(self) -> None:
        self._called = False  # before looking: who posts from now on calls again
        while self._ready:
            self._ready.popleft()()
