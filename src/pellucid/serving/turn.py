"""Whose turn it is to drive the engine, also while the interpreter ends."""

from __future__ import annotations

import os
import threading
from collections import deque
from types import TracebackType


class Turn:
    """A lock for `with`, that after `end` lets only the main thread in.

    The interpreter ends a daemon thread where it comes back from native code, which C++ answers with abort.
    So at exit the pass that such a thread is amid is waited for, and it begins no other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[None] = deque()  # one entry for each thread in line
        self._ended = False
        self._process_id = os.getpid()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waiting.append(None)
            try:
                self._lock.acquire()
            finally:
                self._waiting.pop()
        if self._ended and threading.current_thread() is not threading.main_thread():
            self._lock.release()
            threading.Event().wait()  # for ever: the process ends around this thread

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def contended(self) -> bool:
        """Whether another thread waits. The lock is not fair: who takes it again and again gives way then."""
        return bool(self._waiting)

    def end(self) -> None:
        """The interpreter ends. In a forked child there is no other thread to wait for."""
        if os.getpid() == self._process_id:
            with self._lock:
                self._ended = True
