"""What the process learns from its arguments before it parses them: only how much memory to ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.cli._start import arena_for, model_argument, model_size


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["generate", "-m", "a.gguf", "text"], "a.gguf"),
        (["generate", "--model", "a.gguf"], "a.gguf"),
        (["generate", "--model=a.gguf", "text"], "a.gguf"),
        (["generate", "-ma.gguf"], "a.gguf"),
        (["generate", "-m", "a.gguf", "-m", "b.gguf"], "b.gguf"),
        (["generate", "--", "-m", "a.gguf"], "environment"),
        (["generate", "text", "-m"], "environment"),
    ],
)
def test_the_model_is_found(monkeypatch: pytest.MonkeyPatch, arguments: list[str], name: str) -> None:
    monkeypatch.setenv("PELLUCID_MODEL", "environment")
    assert model_argument(arguments) == name


def test_sizes(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"\0" * 1000)
    assert model_size(str(file)) == 1000
    assert model_size(str(tmp_path / "absent.gguf")) is None
    assert model_size("nul\0.gguf") is None
    assert model_size(str(tmp_path)) is None
    assert model_size("hf:org/repo") is None
    assert model_size(None) == model_size("smollm2-135m-instruct") == 98_362_432


def test_only_where_a_model_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"\0" * 1000)
    assert arena_for(["generate", "-m", str(file)]) is not None
    for arguments in ([], ["models"], ["tokenize", "-m", str(file)], ["generate", "-m", str(file), "--help"]):
        assert arena_for(arguments) is None
