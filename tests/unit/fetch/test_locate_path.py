"""A path, or what was meant to be one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.errors import ModelNotFoundError, UsageError
from pellucid.weights.locate import locate


def test_a_file(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    assert locate(path) == path
    assert locate(str(path)) == path


def test_a_relative_path_and_the_home_directory(tmp_path: Path, monkeypatch):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("m.gguf") == Path("m.gguf")
    assert locate("~/m.gguf") == tmp_path / "m.gguf"


def test_directories(tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(
        ModelNotFoundError, match=r"config.json with \*.safetensors, or one \*.gguf.*holds nothing"
    ):
        locate(model)
    (model / "notes.txt").write_text("")
    with pytest.raises(ModelNotFoundError, match=r"this one holds notes\.txt"):
        locate(model)
    (model / "a.gguf").write_bytes(b"GGUF")
    assert locate(model) == model / "a.gguf"
    (model / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelNotFoundError, match=r"holds 2 GGUF files; name one: a\.gguf, b\.gguf"):
        locate(model)
    (model / "config.json").write_text("{}")
    assert locate(model) == model


def test_a_missing_file_names_what_is_near(tmp_path: Path):
    (tmp_path / "smollm-q4_1.gguf").write_bytes(b"GGUF")
    (tmp_path / "smollm-q4_1.txt").write_bytes(b"")
    wanted = tmp_path / "smollm-q4_0.gguf"
    with pytest.raises(ModelNotFoundError) as caught:
        locate(wanted)
    message = str(caught.value)
    assert f"no file or directory {wanted}" in message
    assert f"near: {tmp_path / 'smollm-q4_1.gguf'};" in message
    assert "\n" not in message
    with pytest.raises(ModelNotFoundError, match=f"no directory {tmp_path / 'nowhere'}"):
        locate(tmp_path / "nowhere" / "m.gguf")


def test_a_mistyped_catalog_name_names_the_right_one(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelNotFoundError, match=r"near: gemma-3-270m; the catalog has: smollm2-135m-instruct, "
    ):
        locate("gemma3-270m")


def test_a_repository_without_hf(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"a repository of the Hub is written hf:Qwen/Qwen3-0\.6B"):
        locate("Qwen/Qwen3-0.6B")


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the model's name is empty"):
        locate(name)


def test_neither_file_nor_directory(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ModelNotFoundError, match="not a regular file"):
        locate(pipe)


def test_a_catalog_name_beats_a_file_and_says_so(tmp_path, monkeypatch, tiny, on_hub, recorder, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_bytes(b"GGUF")
    assert locate("tiny", progress=recorder).read_bytes() == content
    assert recorder.said("taken as the catalog's name", "./tiny")
    assert locate("./tiny").read_bytes() == b"GGUF"
    assert locate(Path("tiny")).read_bytes() == b"GGUF"


def test_the_import_is_light():
    """A model named by its path must not pay for the means of fetching one."""
    heavy = "huggingface_hub httpx rich zipfile subprocess hashlib urllib.request ssl click difflib json"
    code = f"import sys, pellucid.weights.locate; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
