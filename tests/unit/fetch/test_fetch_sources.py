"""A catalog model: sources in order, what each failure costs and says, only the right content is kept."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from fetch_servers import HubStandIn, IndexStandIn, silent_endpoint, swallowing_endpoint

from pellucid.errors import DownloadError, UsageError
from pellucid.fetch.cache import Cache
from pellucid.fetch.catalog import CATALOG, DEFAULT_MODEL, HubSource, Recipe, WheelSource
from pellucid.fetch.fetcher import fetch
from pellucid.weights.locate import MODEL_SUFFIXES, locate

pytestmark = pytest.mark.usefixtures("clean")


def test_the_hub_comes_first(
    tiny: Recipe, on_hub: HubStandIn, on_index: IndexStandIn, recorder, content, cache
):
    path = locate("tiny", progress=recorder)
    assert path.read_bytes() == content
    assert path.name == "tiny.gguf"
    assert on_index.requests == []
    (entry,) = cache.entries()
    assert entry.source == "hf:org/tiny-GGUF/tiny.gguf"
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert recorder.said("Test licence 1.0", "https://example.org/licence")
    assert recorder.ends and all(recorder.ends)
    assert max(recorder.done) == len(content)


def test_a_cached_model_asks_nobody(tiny: Recipe, on_hub: HubStandIn, recorder):
    first = locate("tiny", progress=recorder)
    before = len(on_hub.requests)
    recorder.notes.clear()
    assert locate("tiny", progress=recorder) == first
    assert len(on_hub.requests) == before
    assert recorder.notes == []


def test_redirected_content_and_the_token_stays_home(
    tiny: Recipe, on_hub: HubStandIn, recorder, content, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    on_hub.redirect = True
    assert locate("tiny", progress=recorder).read_bytes() == content
    assert on_hub.cdn_tokens and set(on_hub.cdn_tokens) == {None}


def test_a_broken_off_hub_download_is_resumed(tiny, on_hub: HubStandIn, recorder, content, monkeypatch):
    import huggingface_hub

    if huggingface_hub.__version__.startswith("0."):
        pytest.skip(
            "huggingface_hub before 1.0 does not go on after a broken connection; the next source is asked"
        )
    monkeypatch.setattr(
        huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 4096
    )  # what came is kept by the chunk
    on_hub.break_off["/org/tiny-GGUF/resolve/main/tiny.gguf"] = 1
    assert locate("tiny", progress=recorder).read_bytes() == content
    ranges = [asked for method, _, asked in on_hub.requests if method == "GET"]
    assert ranges[0] is None and any(asked for asked in ranges[1:])


@pytest.mark.slow
def test_a_hub_that_always_breaks_off_is_given_up(
    tiny: Recipe, on_hub: HubStandIn, on_index: IndexStandIn, recorder, content
):
    on_hub.break_off["/org/tiny-GGUF/resolve/main/tiny.gguf"] = 1000
    assert locate("tiny", progress=recorder).read_bytes() == content
    assert recorder.said("the Hub", "trying the next source")
    assert on_hub.count("tiny.gguf") < 20


@pytest.mark.parametrize("same_length", [True, False])
def test_wrong_content_is_refused_and_the_next_source_asked(
    tiny: Recipe, on_hub: HubStandIn, on_index: IndexStandIn, recorder, content, cache, same_length: bool
):
    lie = bytes(len(content)) if same_length else content + b"x"
    if same_length:
        on_hub.lie["tiny.gguf"] = lie
    else:
        on_hub.repos["org/tiny-GGUF"]["tiny.gguf"] = lie
    assert locate("tiny", progress=recorder).read_bytes() == content
    if same_length:
        assert recorder.said(
            "expected", tiny.sha256, hashlib.sha256(lie).hexdigest(), "trying the next source"
        )
    else:
        assert recorder.said(str(len(content)), str(len(lie)), "trying the next source")
        assert on_hub.count("tiny.gguf", "GET") == 0  # the length told, nothing was downloaded
    assert cache.entries()[0].source == "pypi:tiny-model==1.0.0"


def test_wrong_content_everywhere_is_an_error_that_names_both(
    tiny: Recipe, on_hub: HubStandIn, index: IndexStandIn, recorder, content, cache
):
    on_hub.lie["tiny.gguf"] = b"A" * len(content)
    index.add("tiny-model", {"tiny_model/tiny.gguf": b"GGUF" + os.urandom(len(content) - 4)})
    with pytest.raises(DownloadError) as caught:
        locate("tiny", progress=recorder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count(tiny.sha256) == 2
    assert hashlib.sha256(b"A" * len(content)).hexdigest() in message
    assert cache.entries() == []


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda hub: hub.repos.clear(), ["no such repository"]),
        (lambda hub: hub.repos["org/tiny-GGUF"].clear(), ["no such file"]),
        (lambda hub: hub.gated.add("org/tiny-GGUF"), ["gated", "HF_TOKEN"]),
        (lambda hub: setattr(hub, "status", 500), ["500"]),
        (lambda hub: setattr(hub, "status", 403), ["403"]),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_line(
    tiny: Recipe,
    on_hub: HubStandIn,
    on_index: IndexStandIn,
    recorder,
    content,
    prepare: Callable,
    words: list[str],
):
    prepare(on_hub)
    assert locate("tiny", progress=recorder).read_bytes() == content
    assert recorder.said("trying the next source", *words)
    assert not any("\n" in note for note in recorder.notes)


def test_a_token_opens_a_gated_repository(tiny: Recipe, on_hub: HubStandIn, recorder, content, monkeypatch):
    on_hub.gated.add("org/tiny-GGUF")
    on_hub.token = "hf_opens"
    monkeypatch.setenv("HF_TOKEN", "hf_opens")
    assert locate("tiny", progress=recorder).read_bytes() == content


def refused() -> AbstractContextManager[str]:
    import contextlib

    return contextlib.nullcontext("http://127.0.0.1:9")


def nameless() -> AbstractContextManager[str]:
    import contextlib

    return contextlib.nullcontext("http://no-such-host.invalid")


@pytest.mark.parametrize("endpoint", [silent_endpoint, swallowing_endpoint, refused, nameless])
def test_an_unreachable_hub_costs_seconds_not_tens(tiny: Recipe, endpoint, on_index: IndexStandIn, tmp_path):
    """In a new process, so that importing huggingface_hub counts too."""
    script = (
        "import sys, time\n"
        "from fetch_support import TINY, Recorder\n"
        "from pellucid.fetch import hub\n"
        "from pellucid.fetch.catalog import CATALOG\n"
        "from pellucid.weights.locate import locate\n"
        "CATALOG['tiny'] = TINY\n"
        "ask, patience = hub.ask, []\n"
        "hub.ask = lambda question, what, seconds: patience.append(seconds) or ask(question, what, seconds)\n"
        "recorder, start = Recorder(), time.monotonic()\n"
        "path = locate('tiny', progress=recorder)\n"
        "at = [t for t, n in zip(recorder.note_times, recorder.notes) if 'trying the next source' in n]\n"
        "print(at[0] - start, *patience, path)\n"
        "print(recorder.notes, file=sys.stderr)\n"
    )
    with endpoint() as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "PYTHONPATH": os.pathsep.join(sys.path)}
        del environment["HF_HUB_ETAG_TIMEOUT"]
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, patience, path = done.stdout.split()
    assert float(patience) == 2.0  # nothing else was asked; the library's own is 10 s for each of its tries
    assert float(seconds) < 120.0  # about 1.5 on an idle machine
    assert Path(path).is_file()
    assert f"the Hub ({address})" in done.stderr


@pytest.mark.parametrize("variable", ["PELLUCID_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_uses_only_what_is_cached(
    tiny: Recipe, on_hub: HubStandIn, recorder, content, monkeypatch, variable
):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DownloadError, match=rf"tiny is not in the cache .*{variable}=1.*pellucid pull tiny"):
        locate("tiny", progress=recorder)
    assert on_hub.requests == []
    monkeypatch.delenv(variable)
    locate("tiny", progress=recorder)
    monkeypatch.setenv(variable, "1")
    assert locate("tiny", progress=recorder).read_bytes() == content


def test_an_odd_offline_value_is_an_error(tiny: Recipe, recorder, monkeypatch):
    monkeypatch.setenv("PELLUCID_OFFLINE", "maybe")
    with pytest.raises(UsageError, match="PELLUCID_OFFLINE must be 1 or 0, not 'maybe'"):
        locate("tiny", progress=recorder)


def test_too_little_space_is_said_beforehand(tiny: Recipe, on_hub: HubStandIn, recorder, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    recipe = replace(tiny, sources=tiny.sources[:1])
    with pytest.raises(
        DownloadError, match=r"tiny: needs 300.0 kB in .*, and 1.0 kB are free; free some space, or set"
    ):
        fetch(recipe, Cache(), recorder)
    assert on_hub.count("tiny.gguf", "GET") == 0


def test_a_disk_that_fills_up_while_unpacking(
    tiny: Recipe, on_index: IndexStandIn, recorder, monkeypatch, cache
):
    """The write fails in the middle, as on a full disk: one line, and nothing is left."""
    from pellucid.fetch import wheels

    class FullDisk:
        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            self.file.write(data[:1000])
            self.file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(wheels, "open", FullDisk, raising=False)
    with pytest.raises(DownloadError, match=r"the disk of .* is full; free some space, or set PELLUCID_HOME"):
        locate("tiny", progress=recorder)
    assert cache.entries() == []


def test_a_cache_that_may_not_be_written_says_so(tiny: Recipe, on_hub: HubStandIn, recorder, home: Path):
    home.write_text("a file in the place of the cache")
    with pytest.raises(DownloadError, match="set PELLUCID_HOME to a directory that you may write to"):
        locate("tiny", progress=recorder)
    home.unlink()


def test_a_file_changed_in_the_cache_is_not_used(
    tiny: Recipe, on_hub: HubStandIn, recorder, content, monkeypatch
):
    path = locate("tiny", progress=recorder)
    damaged = bytearray(content)
    damaged[1000] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(1, 1))
    got = hashlib.sha256(damaged).hexdigest()
    monkeypatch.setenv("PELLUCID_OFFLINE", "1")
    with pytest.raises(DownloadError, match="not in the cache"):
        locate("tiny", progress=recorder)
    assert recorder.said("changed in the cache", tiny.sha256, got)
    monkeypatch.delenv("PELLUCID_OFFLINE")
    assert locate("tiny", progress=recorder).read_bytes() == content


def test_a_file_merely_touched_is_checked_once(tiny: Recipe, on_hub: HubStandIn, recorder, monkeypatch):
    from pellucid.fetch import cache as module

    path = locate("tiny", progress=recorder)
    os.utime(path, ns=(10**18, 10**18))
    hashed = []
    real = module.file_sha256
    monkeypatch.setattr(module, "file_sha256", lambda *a: hashed.append(a) or real(*a))
    for _ in range(3):
        assert locate("tiny", progress=recorder) == path
    assert len(hashed) == 1


def test_a_file_touched_in_a_read_only_cache_is_used(tiny: Recipe, on_hub: HubStandIn, recorder, monkeypatch):
    path = locate("tiny", progress=recorder)
    os.utime(path, ns=(10**18, 10**18))

    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    for change in ("write_text", "write_bytes", "touch", "unlink", "rename", "replace"):
        monkeypatch.setattr(type(path), change, refuse)
    assert locate("tiny", progress=recorder) == path


def test_a_catalog_that_moved_on_fetches_again(tiny: Recipe, on_hub: HubStandIn, recorder, monkeypatch):
    locate("tiny", progress=recorder)
    newer = b"GGUF" + os.urandom(1000)
    on_hub.repos["org/tiny-GGUF"]["tiny.gguf"] = newer
    changed = replace(tiny, size=len(newer), sha256=hashlib.sha256(newer).hexdigest())
    monkeypatch.setitem(CATALOG, "tiny", changed)
    assert locate("tiny", progress=recorder).read_bytes() == newer
    assert recorder.said("not the one of this version's catalog")


def test_ctrl_c_leaves_nothing(tiny: Recipe, on_hub: HubStandIn, recorder, monkeypatch, cache):
    from pellucid.fetch import fetcher

    def interrupted(*args, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetcher, "file_sha256", interrupted)
    with pytest.raises(KeyboardInterrupt):
        locate("tiny", progress=recorder)
    assert cache.entries() == []


def test_the_catalog_is_complete_and_pinned():
    assert DEFAULT_MODEL in CATALOG
    for name, recipe in CATALOG.items():
        assert not name.endswith(MODEL_SUFFIXES)  # what ends so is taken for a path
        assert name == recipe.name
        assert recipe.size and recipe.sha256 and len(recipe.sha256) == 64 and int(recipe.sha256, 16)
        assert recipe.licence and recipe.licence_url and recipe.file_name
        kinds = [type(source) for source in recipe.sources]
        assert kinds == sorted(kinds, key=[HubSource, WheelSource].index), "the Hub first"
        for source in recipe.sources:
            if isinstance(source, WheelSource):
                assert len(source.members) == len(source.requirements)


def test_the_entry_on_disk_says_where_it_came_from(tiny: Recipe, on_hub: HubStandIn, recorder):
    path = locate("tiny", progress=recorder)
    record = json.loads((path.parent / "entry.json").read_text())
    assert record["path"] == "tiny.gguf"
    assert record["licence"] == "Test licence 1.0"
    assert abs(time.time() - path.stat().st_mtime) < 3600
