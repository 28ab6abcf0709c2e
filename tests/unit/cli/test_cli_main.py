"""The group itself: laziness, help, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from cli_support import environment, run

import pellucid.cli
from pellucid.cli.main import Commands, main
from pellucid.sampling.params import SamplingParams

COMMANDS = sorted(
    file.stem.replace("_", "-")
    for file in Path(pellucid.cli.__file__).parent.glob("*.py")
    if file.stem != "main" and not file.stem.startswith("_")
)


def test_help_lists_every_command_with_its_line(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        line = next(line for line in result.stdout.splitlines() if line.strip().startswith(name + " "))
        assert len(line.split()) > 3
        assert not line.rstrip().endswith("..."), f"{name}: its one line does not fit: {line}"
    assert invoke().stdout == result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example(invoke, name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert f"pellucid {name}" in result.stdout


def test_only_the_asked_command_is_imported():
    code = (
        "import sys; from pellucid.cli.main import main\n"
        "try: main(['tokenize', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith('pellucid.cli.') or m in "
        "('numpy', 'rich', 'jinja2', 'tokenizers', 'huggingface_hub')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    names = [f"pellucid.cli.{name}" for name in ("_console", "_json", "_options", "main", "tokenize")]
    assert done.stderr.strip() == str(names)


def test_import_pellucid_is_light():
    """What makes it quick: a package of its own, and no more of Python's than lazy names and types need."""
    code = (
        "import sys; before = set(sys.modules); import pellucid; new = set(sys.modules) - before\n"
        "print(len(new), *(name for name in new if name.startswith('pellucid')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    number, *ours = done.stdout.split()
    assert ours == ["pellucid"]
    assert int(number) <= 60  # 27 with Python 3.11; NumPy alone brings 150


def test_every_public_name_is_there():
    for name in pellucid.__all__:
        assert getattr(pellucid, name) is not None
    assert set(dir(pellucid)) == set(pellucid.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pellucid.nothing  # noqa: B018


def test_python_dash_m_and_version():
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(b"pellucid ")
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["nothing"], 2),
        (["--nothing"], 2),
        (["generate", "--temperature", "-1", "x"], 2),
        (["generate", "--temperature", "nan", "x"], 2),
        (["generate", "--top-k", "many", "x"], 2),
        (["generate", "--max-tokens", "0", "x"], 2),
        (["generate", "--banned-ids", "1,x", "x"], 2),
        (["generate", "--logit-bias", "5", "x"], 2),
        (["generate", "--kv-memory", "lots", "x"], 2),
        (["generate", "--system", "s", "x"], 2),
        (["generate", "--chat", "--parse-special", "x"], 2),
        (["generate", "--file", "/nowhere/at/all"], 2),
        (["generate", "--file", "/nowhere", "and a prompt"], 2),
        (["generate", "-m", "/nowhere/model.gguf", "x"], 2),
        (["info", "/nowhere/model.gguf"], 2),
        (["info", __file__], 2),
        (["tokenize", "-m", "/nowhere/model.gguf", "x"], 2),
        (["bench", "--prefill", "0"], 2),
        (["bench", "--threads", "two"], 2),
        (["completion", "tcsh"], 2),
    ],
)
def test_errors_are_one_line_on_stderr(invoke, args, code):
    result = invoke(*args)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("pellucid: error: ")
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (MemoryError(), 1, "out of memory"),
        (PermissionError(13, "Permission denied", "/etc/shadow"), 1, "/etc/shadow: Permission denied"),
        (RuntimeError("two\nlines"), 1, "RuntimeError: two lines (a bug"),
        (click.ClickException("said"), 1, "said"),
        (SystemExit(3), 3, ""),
    ],
)
def test_exit_codes_of_other_errors(monkeypatch, capsys, error, code, words):
    @click.command()
    def failing():
        raise error

    monkeypatch.setattr(Commands, "get_command", lambda self, ctx, name: failing)
    monkeypatch.setattr("pellucid.cli.main._silence", lambda stream: None)
    with pytest.raises(SystemExit) as caught:
        main(["anything"], prog_name="pellucid")
    assert caught.value.code == code
    stderr = capsys.readouterr().err
    assert words in stderr
    assert "Traceback" not in stderr
    if words:
        assert len(stderr.splitlines()) == 1


def test_warnings_are_one_line(monkeypatch, capsys):
    @click.command()
    def warning():
        warnings.warn("two\nlines", stacklevel=1)

    monkeypatch.setattr(Commands, "get_command", lambda self, ctx, name: warning)
    with pytest.raises(SystemExit) as caught:
        main(["anything"], prog_name="pellucid")
    assert caught.value.code == 0
    assert capsys.readouterr().err == "pellucid: warning: two lines\n"


def test_without_stdin_there_is_no_prompt():
    command = f"{sys.executable} -m pellucid generate <&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment())
    assert done.returncode == 2
    assert b"no prompt" in done.stderr


def test_debug_shows_the_traceback(invoke):
    result = invoke("info", "/nowhere.gguf", PELLUCID_DEBUG="1")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(invoke, shell):
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert "_PELLUCID_COMPLETE" in result.stdout


def test_completion_completes_flags_of_the_sampling_parameters():
    words = {
        "COMP_WORDS": "pellucid generate --top",
        "COMP_CWORD": "2",
        "_PELLUCID_COMPLETE": "bash_complete",
    }
    done = run(**words)
    flags = ["--" + name.replace("_", "-") for name in SamplingParams().to_dict()]
    expected = sorted(f"plain,{flag}".encode() for flag in flags if flag.startswith("--top"))
    assert b"plain,--top-k" in expected
    assert sorted(done.stdout.split()) == expected
