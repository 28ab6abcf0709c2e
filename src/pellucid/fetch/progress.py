"""Tell a person on stderr how a fetch is going: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 10.0  # how often plain output says how far it is
POLL_SECONDS = 0.1  # how often a growing file is looked at


class Progress(Protocol):
    """What a fetch reports to. Each `begin` is followed by any number of `at` and one `end`."""

    def begin(self, what: str, total: int | None) -> None:
        """A phase starts: `total` bytes, None when nobody knows."""

    def at(self, done: int) -> None:
        """`done` bytes of this phase are there (absolute, not a difference)."""

    def end(self, complete: bool) -> None:
        """The phase is over, well or broken off."""

    def note(self, line: str) -> None:
        """One line for the person: a licence, a source that failed, another process to wait for."""


class SilentProgress:
    """Reports nothing."""

    def begin(self, what: str, total: int | None) -> None: ...

    def at(self, done: int) -> None: ...

    def end(self, complete: bool) -> None: ...

    def note(self, line: str) -> None: ...


class LineProgress:
    """Plain lines: when a phase starts, every ten seconds, and when it ends."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._what = ""
        self._total: int | None = None
        self._done = 0
        self._started = self._said = 0.0

    def begin(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started = self._said = time.monotonic()
        self.note(what if total is None else f"{what} ({human_size(total)})")

    def at(self, done: int) -> None:
        self._done = done
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS:
            self._said = now
            share = f" of {human_size(self._total)} ({100 * done // self._total}%)" if self._total else ""
            rate = human_size(int(done / max(now - self._started, 1e-9)))
            self.note(f"  {human_size(done)}{share}, {rate}/s")

    def end(self, complete: bool) -> None:
        seconds = time.monotonic() - self._started
        self.note(f"  {human_size(self._done)} in {seconds:.1f} s{'' if complete else ', then broken off'}")

    def note(self, line: str) -> None:
        stream = self._stream or sys.stderr
        if stream is not None:  # started with stderr closed
            print(line, file=stream, flush=True)


class TerminalProgress:
    """What is done, and below it a bar with rate and time left as wide as the terminal, drawn by rich on stderr."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True, highlight=False)
        self._bar: Any = None
        self._task: Any = None

    def begin(self, what: str, total: int | None) -> None:
        from rich import progress as parts
        from rich.table import Column

        self.note(what)
        whole = Column(no_wrap=True)
        self._bar = parts.Progress(
            parts.BarColumn(bar_width=None, table_column=Column(ratio=1)),
            parts.DownloadColumn(table_column=whole),
            parts.TransferSpeedColumn(table_column=whole),
            parts.TimeRemainingColumn(table_column=whole),
            console=self._console,
            expand=True,
        )
        self._task = self._bar.add_task("", total=total)
        self._bar.start()

    def at(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def end(self, complete: bool) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def stderr_progress() -> Progress:
    """The bar if stderr is a terminal, plain lines if not."""
    return TerminalProgress() if sys.stderr is not None and sys.stderr.isatty() else LineProgress()


def human_size(size: int) -> str:
    """Bytes in the decimal units that package indexes and the Hub show: `98.4 MB`."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


@contextmanager
def phase(progress: Progress, what: str, total: int | None) -> Iterator[None]:
    """Report the block as one phase: its beginning, and its end however it ends."""
    progress.begin(what, total)
    complete = False
    try:
        yield
        complete = True
    finally:
        progress.end(complete)


@contextmanager
def watching(folder: Path, progress: Progress, before: int = 0, pattern: str = "*") -> Iterator[None]:
    """While the block runs, report `before` plus the size of the largest matching file now written under
    `folder`.

    Somebody else's code writes there and does not say how far it is. It may write a temporary file and then
    copy it, so the largest file, and not the sum, is what has come.
    """
    stop = threading.Event()
    since = time.time() - 1.0  # file systems round times; older files are not of this download

    def look() -> None:
        high = 0
        while not stop.wait(POLL_SECONDS):
            largest = _largest_file(folder, pattern, since)
            if largest > high:
                high = largest
                progress.at(before + high)

    thread = threading.Thread(target=look, name="pellucid-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _largest_file(folder: Path, pattern: str, since: float) -> int:
    largest = 0
    try:
        for path in folder.rglob(pattern):
            status = path.lstat()
            if status.st_mtime >= since:  # a sparse file's blocks tell what is really there
                largest = max(largest, min(status.st_size, status.st_blocks * 512))
    except OSError:  # something was moved away while we looked; the next look finds it
        pass
    return largest
