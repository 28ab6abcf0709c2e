"""Ctrl-C waits for the end of a forward pass, so that the engine is never left between two states."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class HeldInterrupts:
    """While inside, SIGINT is remembered; on leaving, the handler that was there before gets it.

    Only Python's main thread receives signals: elsewhere, and where SIGINT is ignored or left to the system,
    this does nothing. Entering and leaving cost about a microsecond each.
    """

    __slots__ = ("_pending", "_previous")

    def __enter__(self) -> HeldInterrupts:
        self._pending: tuple[int, FrameType | None] | None = None
        self._previous: Any = None
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                signal.signal(signal.SIGINT, self._remember)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._pending = (number, frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            if self._pending is not None:
                self._previous(*self._pending)
