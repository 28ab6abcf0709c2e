"""What the process learns from its arguments before it parses them: only how much memory to ask for. And its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import HANGS, environment

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


def ended(script: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    code = f"import atexit, sys, threading\nfrom pellucid.cli._start import leave\n{script}"
    env = environment()
    env.pop("PYTHONUNBUFFERED", None)  # what is written stays in the buffers until the end
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", code], env=env, timeout=HANGS, **{"stdout": subprocess.PIPE, **more}
    )


def test_the_short_way_out_loses_nothing() -> None:
    done = ended(
        "atexit.register(print, 'last')\n"
        "class Freed:\n    def __del__(self): print('freed')\n"
        "kept = Freed()\n"
        "print('first')\nleave()\nprint('not reached')"
    )
    assert (done.returncode, done.stdout) == (0, b"first\nlast\n")


@pytest.mark.parametrize("hook", ["sys.setprofile", "sys.settrace"])
def test_who_watches_the_process_sees_its_end(hook: str) -> None:
    done = ended(f"{hook}(lambda *event: None)\nleave()\nprint('goes on')")
    assert (done.returncode, done.stdout) == (0, b"goes on\n")


def test_a_thread_that_runs_is_waited_for() -> None:
    done = ended(
        "go = threading.Event()\n"
        "def work():\n    go.wait()\n    print('worked')\n"
        "threading.Thread(target=work).start()\n"
        "leave()\nprint('goes on', flush=True)\ngo.set()"
    )
    assert (done.returncode, done.stdout) == (0, b"goes on\nworked\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_output_that_cannot_be_written_is_no_success() -> None:
    with open("/dev/full", "wb") as full:
        done = ended("print('lost')\nleave()", stdout=full, stderr=subprocess.DEVNULL)
    assert done.returncode == 120
