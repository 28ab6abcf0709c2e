"""Fixtures: an empty home for models and for the Hub's cache, the two stand-ins, a recorder of progress."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetch_servers import HubStandIn, IndexStandIn
from fetch_support import CONTENT, TINY, Recorder, assert_clean

from pellucid.fetch.cache import Cache
from pellucid.fetch.catalog import Recipe


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


PATIENCE = "300"  # seconds
PIP_SETTINGS = "CONFIG_FILE DEFAULT_TIMEOUT RETRIES INDEX_URL EXTRA_INDEX_URL FIND_LINKS NO_INDEX"
MACHINE_PIP = {f"PIP_{name}": os.environ.get(f"PIP_{name}") for name in PIP_SETTINGS.split()}


@pytest.fixture
def machine_pip(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip as this machine has it, for tests that really download."""
    for name, value in MACHINE_PIP.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the machine's own caches, settings and network is seen."""
    from huggingface_hub import constants

    folder = tmp_path / "home"
    monkeypatch.setenv("PELLUCID_HOME", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    # Stand-ins answer, however slow the machine is; tests of those that do not answer set their own patience.
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", PATIENCE)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", PATIENCE)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", PATIENCE)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", int(PATIENCE))
    monkeypatch.setattr("pellucid.fetch.hub.FALLBACK_SECONDS", float(PATIENCE))
    names = "PELLUCID_OFFLINE HF_HUB_OFFLINE HF_TOKEN PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX"
    for name in names.split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: refused at once
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    return folder


@pytest.fixture
def cache(home: Path) -> Cache:
    return Cache()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    server = HubStandIn()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.close()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexStandIn]:
    server = IndexStandIn()
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    yield server
    server.close()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A small model that is in the catalog for this test, with both kinds of sources."""
    from pellucid.fetch.catalog import CATALOG

    monkeypatch.setitem(CATALOG, "tiny", TINY)
    return TINY


@pytest.fixture
def content() -> bytes:
    return CONTENT


@pytest.fixture
def on_hub(hub: HubStandIn) -> HubStandIn:
    hub.repos["org/tiny-GGUF"] = {"tiny.gguf": CONTENT}
    return hub


@pytest.fixture
def on_index(index: IndexStandIn) -> IndexStandIn:
    index.add(
        "tiny-model", {"tiny_model/tiny.gguf": CONTENT, "tiny_model/__init__.py": b"raise SystemExit(9)"}
    )
    return index


@pytest.fixture
def clean(cache: Cache) -> Iterator[None]:
    """Checks after the test that the cache is clean."""
    yield
    assert_clean(cache)
