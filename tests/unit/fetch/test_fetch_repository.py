"""`hf:org/repo[@revision][/file]`: through huggingface_hub's real code against a stand-in Hub."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from threading import Event

import pytest
from fetch_servers import COMMIT, HubStandIn, silent_endpoint

from pellucid.errors import DownloadError, ModelNotFoundError, UsageError
from pellucid.fetch.hub import HubUnreachableError, ask
from pellucid.fetch.hubcache import hub_models, remove_hub_model
from pellucid.fetch.repository import RepositorySpec, choose_files, parse_spec
from pellucid.weights.locate import locate

WEIGHTS = random.Random(5).randbytes(100_000)
SIDE = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
]
UNWANTED = [
    "pytorch_model.bin",
    "modeling_x.py",
    "tokenizer_x.py",
    "README.md",
    "onnx/model.onnx",
    "original/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer.pkl",
    "training_args.bin",
]


@pytest.fixture
def safetensors_repo(hub: HubStandIn) -> HubStandIn:
    files = {name: f"content of {name}".encode() for name in SIDE + UNWANTED}
    hub.repos["org/model"] = files | {"model.safetensors": WEIGHTS}
    return hub


@pytest.mark.parametrize("redirect", [False, True])
def test_a_safetensors_repository_brings_what_a_model_needs(safetensors_repo: HubStandIn, recorder, redirect):
    safetensors_repo.redirect = redirect
    folder = locate("hf:org/model", progress=recorder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*SIDE, "model.safetensors"])
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    asked = {path.rpartition("/")[2] for _, path, _ in safetensors_repo.requests}
    assert not asked & {name.rpartition("/")[2] for name in UNWANTED if "/" not in name}
    assert recorder.phases[0][0] == "fetching hf:org/model (6 files)"
    assert recorder.done[-1] == recorder.phases[0][1]


def test_shards_are_those_that_the_index_names(hub: HubStandIn, recorder):
    shards = {f"model-0000{i}-of-00002.safetensors": WEIGHTS[i:] for i in (1, 2)}
    index = {"weight_map": {f"t{i}": name for i, name in enumerate(shards)}}
    hub.repos["org/model"] = {
        **shards,
        "config.json": b"{}",
        "consolidated.safetensors": b"the same again in another layout",
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    folder = locate("hf:org/model", progress=recorder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([*shards, "config.json", "model.safetensors.index.json"])


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b'{"weight_map": {"t": "../../x.safetensors"}}',
        b'{"weight_map": {"t": "absent.safetensors"}}',
    ],
)
def test_a_broken_or_hostile_index_is_an_error(hub: HubStandIn, recorder, index: bytes):
    hub.repos["org/model"] = {"config.json": b"{}", "model.safetensors.index.json": index}
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors\.index\.json"):
        locate("hf:org/model", progress=recorder)


def test_one_gguf_needs_no_name(hub: HubStandIn, recorder):
    hub.repos["org/model-GGUF"] = {"README.md": b"", "model.gguf": WEIGHTS}
    assert locate("hf:org/model-GGUF", progress=recorder).read_bytes() == WEIGHTS


def test_several_ggufs_must_be_named(hub: HubStandIn, recorder):
    hub.repos["org/model-GGUF"] = {"a.Q4_0.gguf": WEIGHTS, "sub/a.Q8_0.gguf": WEIGHTS[1:]}
    with pytest.raises(ModelNotFoundError) as caught:
        locate("hf:org/model-GGUF", progress=recorder)
    assert "holds 2 GGUF files; name one: " in str(caught.value)
    assert "hf:org/model-GGUF/a.Q4_0.gguf, hf:org/model-GGUF/sub/a.Q8_0.gguf" in str(caught.value)
    path = locate("hf:org/model-GGUF/sub/a.Q8_0.gguf", progress=recorder)
    assert path.read_bytes() == WEIGHTS[1:]
    assert hub.count("a.Q4_0.gguf") == 0
    with pytest.raises(ModelNotFoundError, match=r"no file 'a.Q4_1.gguf'; there are: a.Q4_0.gguf"):
        locate("hf:org/model-GGUF/a.Q4_1.gguf", progress=recorder)


@pytest.mark.parametrize(
    ("there", "spec", "files", "result"),
    [
        (["a.gguf", "model.safetensors"], "hf:o/r", None, "holds 1 GGUF files and safetensors"),
        (["x.bin", "y.py"], "hf:o/r", None, "neither GGUF nor safetensors"),
        (["a.safetensors", "b.safetensors"], "hf:o/r", None, "2 safetensors files and no model"),
        (["a.safetensors", "b.safetensors", "config.json"], "hf:o/r/b.safetensors",
         ["b.safetensors", "config.json"], "b.safetensors"),
        (["a.safetensors", "model.safetensors"], "hf:o/r", ["model.safetensors"], ""),
        (["other.safetensors"], "hf:o/r", ["other.safetensors"], ""),
        (["a.gguf", "m.safetensors"], "hf:o/r/m.safetensors", ["m.safetensors"], "m.safetensors"),
    ],
)  # fmt: skip
def test_choosing(there: list[str], spec: str, files: list[str] | None, result: str):
    if files is None:
        with pytest.raises(ModelNotFoundError, match=result):
            choose_files(parse_spec(spec), there, None)
    else:
        choice = choose_files(parse_spec(spec), there, None)
        assert (choice.files, choice.result) == (files, result)


def test_pickles_and_code_cannot_even_be_named():
    with pytest.raises(UsageError, match="reads GGUF and safetensors"):
        choose_files(parse_spec("hf:o/r/pytorch_model.bin"), ["pytorch_model.bin"], None)


def test_the_notation():
    assert parse_spec("hf:o/r") == RepositorySpec("o/r", None, "main")
    assert parse_spec("hf:o/r/d/f.gguf") == RepositorySpec("o/r", "d/f.gguf", "main")
    assert parse_spec("hf:o/r@v1.0/f.gguf") == RepositorySpec("o/r", "f.gguf", "v1.0")
    for bad in (
        "hf:",
        "hf:o",
        "hf:o/",
        "hf:/r",
        "hf:o/r/../x",
        "hf:o/r//f",
        "hf:o/r@/f",
        "hf:o/r@../f",
        "hf:../r",
        "hf:o r/x",
    ):
        with pytest.raises(UsageError):
            parse_spec(bad)


def test_a_revision(safetensors_repo: HubStandIn, recorder):
    assert locate(f"hf:org/model@{COMMIT}", progress=recorder).name == COMMIT
    with pytest.raises(ModelNotFoundError, match="no such revision"):
        locate("hf:org/model@v9", progress=recorder)


def test_refusals(safetensors_repo: HubStandIn, recorder, monkeypatch):
    with pytest.raises(
        ModelNotFoundError, match=r"hf:org/absent: the Hub .* shows no such repository.*HF_TOKEN"
    ):
        locate("hf:org/absent", progress=recorder)
    safetensors_repo.gated.add("org/model")
    safetensors_repo.token = "hf_good"
    with pytest.raises(
        DownloadError, match=r"gated; accept its terms at http://.*/org/model, then set HF_TOKEN"
    ):
        locate("hf:org/model", progress=recorder)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert locate("hf:org/model", progress=recorder).is_dir()


def test_wrong_content_is_refused_and_deleted(safetensors_repo: HubStandIn, recorder, tmp_path):
    safetensors_repo.lie["model.safetensors"] = bytes(len(WEIGHTS))
    with pytest.raises(
        DownloadError, match=r"model.safetensors: expected 100000 bytes with sha256 .*refused and deleted"
    ):
        locate("hf:org/model", progress=recorder)
    assert not any(
        path.stat().st_size == len(WEIGHTS) for path in (tmp_path / "hf").rglob("*") if path.is_file()
    )
    safetensors_repo.lie.clear()
    folder = locate("hf:org/model", progress=recorder)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_broken_off_download_goes_on(safetensors_repo: HubStandIn, recorder):
    """At once, or, with a huggingface_hub that gives up (before 1.0), when it is asked again."""
    safetensors_repo.break_off[f"/org/model/resolve/{COMMIT}/model.safetensors"] = 1
    try:
        folder = locate("hf:org/model", progress=recorder)
    except DownloadError as error:
        assert "Connection broken" in str(error)
        folder = locate("hf:org/model", progress=recorder)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("variable", ["PELLUCID_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(safetensors_repo: HubStandIn, recorder, monkeypatch, variable: str):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DownloadError, match=rf"hf:org/model is not in the Hub's cache .*{variable}=1"):
        locate("hf:org/model", progress=recorder)
    assert safetensors_repo.requests == []
    monkeypatch.delenv(variable)
    online = locate("hf:org/model", progress=recorder)
    before = len(safetensors_repo.requests)
    monkeypatch.setenv(variable, "1")
    assert locate("hf:org/model", progress=recorder) == online
    assert locate("hf:org/model/model.safetensors", progress=recorder) == online / "model.safetensors"
    assert len(safetensors_repo.requests) == before
    (online / "model.safetensors").unlink()
    with pytest.raises(DownloadError, match="in the Hub's cache"):
        locate("hf:org/model", progress=recorder)


def test_an_unreachable_hub_uses_the_cached_copy_and_says_so(
    safetensors_repo: HubStandIn, recorder, monkeypatch
):
    online = locate("hf:org/model", progress=recorder)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "2")
    with silent_endpoint() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert locate("hf:org/model", progress=recorder) == online
        assert recorder.said("did not answer within 2 s", "using the copy in the Hub's cache")
        with pytest.raises(DownloadError, match=r"hf:org/other is not in the Hub's cache .*did not answer"):
            locate("hf:org/other", progress=recorder)


@pytest.mark.parametrize("where", ["builtins", "httpx", "requests"])
def test_whichever_clock_is_first_the_same_is_said(where: str):
    """Ours, or the library's in the thread that asks."""
    module = pytest.importorskip(where)
    error = getattr(module, "ReadTimeout", TimeoutError)("timed out")

    def question() -> None:
        raise error

    with pytest.raises(HubUnreachableError, match=r"^the Hub \(.*\) did not answer within 300 s$"):
        ask(question, "org/model", 300.0)
    with pytest.raises(HubUnreachableError, match=r"^the Hub \(.*\) did not answer within 0 s$"):
        ask(Event().wait, "org/model", 0.0)


def test_a_cached_repository_costs_one_question(safetensors_repo: HubStandIn, recorder):
    locate("hf:org/model", progress=recorder)
    before = len(safetensors_repo.requests)
    locate("hf:org/model", progress=recorder)
    assert len(safetensors_repo.requests) == before + 1


def test_listing_and_removing_from_the_hubs_cache(safetensors_repo: HubStandIn, recorder, tmp_path: Path):
    locate("hf:org/model", progress=recorder)
    (model,) = hub_models()
    assert model.name == "hf:org/model"
    really = sum(p.stat().st_size for p in (model.path / "blobs").iterdir())
    assert model.size == really
    assert remove_hub_model("hf:org/model") == really
    assert hub_models() == []
    assert not model.path.exists()
    with pytest.raises(
        ModelNotFoundError, match="hf:org/model is not in the Hub's cache; it holds: no models"
    ):
        remove_hub_model("hf:org/model")


def test_an_odd_time_limit_is_an_error(hub: HubStandIn, recorder, monkeypatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "soon")
    with pytest.raises(UsageError, match="HF_HUB_ETAG_TIMEOUT must be a number of seconds, not 'soon'"):
        locate("hf:org/model", progress=recorder)
    assert os.environ["HF_HUB_ETAG_TIMEOUT"] == "soon"
