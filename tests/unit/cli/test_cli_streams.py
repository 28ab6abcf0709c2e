"""Where output cannot go, where there is no input, and terminals that are narrow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import HANGS, environment

FULL = Path("/dev/full")


def start(*args: object, close: int | None = None, **pipes: object) -> subprocess.CompletedProcess[str]:
    """`python -m pellucid ARGS`, with one of its standard streams closed."""
    command = [sys.executable, "-m", "pellucid", *map(str, args)]
    if close is not None:  # a shell closes it: Popen could only give another
        command = ["sh", "-c", f'exec "$0" "$@" {close}>&-', *command]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    return subprocess.run(command, text=True, timeout=HANGS, env=environment(), check=False, **pipes)


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("kind", ["text", "json", "tokenize", "help"])
def test_a_full_disk_is_one_line_and_exit_code_1(tiny, kind):
    args = {
        "text": ["generate", "-m", tiny, "hello", "--max-tokens", 3, "--allowed-ids", "70,71"],
        "json": ["generate", "-m", tiny, "hello", "--max-tokens", 3, "--json"],
        "tokenize": ["tokenize", "-m", tiny, "--ids", "hello"],
        "help": ["--help"],
    }[kind]
    with FULL.open("w") as full:
        done = start(*args, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "pellucid: error: output: No space left on device\n"


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
def test_a_full_stderr_leaves_the_exit_code(tmp_path):
    with FULL.open("w") as full:
        assert start("generate", "-m", tmp_path / "none", "hello", stderr=full).returncode == 2


def test_a_closed_stdout_is_an_error_and_not_silence(tiny):
    done = start("generate", "-m", tiny, "hello", "--max-tokens", 2, close=1)
    assert done.returncode == 1
    assert done.stderr.startswith("pellucid: error: stdout: closed")
    assert done.stderr.count("\n") == 1


def test_a_closed_stderr_takes_nothing_from_stdout(tiny):
    args = ("generate", "-m", tiny, "hello", "--max-tokens", 3, "--stats")
    closed, open_ = start(*args, close=2), start(*args)
    assert (closed.returncode, closed.stdout) == (0, open_.stdout)
    assert open_.stdout.strip()


def test_settings_alone_where_stdin_is_empty(tiny):
    done = start("generate", "-m", tiny, "--show-settings", "--temperature", "0.5")
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("temperature")] == [
        ["temperature", "0.5"]
    ]
    assert start("generate", "-m", tiny).returncode in (0, 2)  # an empty prompt: BOS alone, or an error


def test_options_without_effect_are_told(invoke, tiny):
    def notes(*args: object) -> list[str]:
        result = invoke("generate", "-m", tiny, "hello", "--max-tokens", 2, *args)
        assert result.exit_code == 0
        return [line for line in result.stderr.splitlines() if "no effect" in line]

    assert notes() == []
    assert notes("--temperature", 1, "--top-k", 5, "--seed", 1) == []
    told = notes("--top-k", 5, "--seed", 1)
    assert len(told) == 1
    assert {"--top-k", "--seed"} <= {word.strip(",") for word in told[0].split()}


@pytest.mark.parametrize("command", [[], ["generate"], ["chat"], ["bench"]])
def test_help_fits_a_narrow_terminal(command):
    done = subprocess.run(
        [sys.executable, "-m", "pellucid", *command, "--help"],
        capture_output=True,
        text=True,
        env=environment(COLUMNS="40"),
        check=True,
    )
    body = done.stdout.split("Examples:")[0]  # examples are lines to be copied: they keep theirs
    # click: 30 for a flag, 10 for its text, 4 between; a word that is longer stands alone
    assert all(len(line) <= 44 or len(line[34:].split()) == 1 for line in body.splitlines())


def test_a_near_command_is_named(invoke):
    result = invoke("generat", "hi")
    assert result.exit_code == 2
    assert "did you mean generate?" in result.stderr
    assert "did you mean" not in invoke("xyzzy").stderr


def test_no_stderr_and_a_fetch():
    """What `pellucid generate ... 2>&-` uses to find a catalog model."""
    code = (
        "import sys; sys.stderr = None\n"
        "from pellucid.fetch.progress import stderr_progress\n"
        "progress = stderr_progress(); progress.begin('x', 3); progress.at(3); progress.end(True)\n"
        "print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (0, f"done{os.linesep}")


def test_bytes_that_are_not_utf8_are_named_as_such(tiny, tiny_chat):
    environment_ = environment(PYTHONUTF8="1")
    for args, given, name in (
        (["generate", "-m", str(tiny), b"ab\xff"], b"", "the argument: not UTF-8 text at character 2"),
        (["tokenize", "-m", str(tiny), b"\xff"], b"", "the argument: not UTF-8 text at character 0"),
        (["chat", "-m", str(tiny_chat)], b"abc\xff\n", "the message: not UTF-8 text at character 3"),
        (["generate", "-m", str(tiny)], b"a\xff", "stdin: not UTF-8 text at byte 1"),
    ):
        command = [sys.executable, "-m", "pellucid", *args]
        done = subprocess.run(command, input=given, capture_output=True, timeout=HANGS, env=environment_)
        assert done.returncode == 2
        assert done.stderr.decode().startswith(f"pellucid: error: {name}")


@pytest.mark.parametrize("command", ["generate", "chat", "info", "tokenize", "bench", "pull", "rm"])
def test_a_shell_completes_models(command, tmp_path):
    def complete(word: str) -> list[str]:
        option = f"pellucid {command} " + ("" if command in ("info", "pull", "rm") else "--model ") + word
        more = {
            "_PELLUCID_COMPLETE": "bash_complete",
            "COMP_WORDS": option,
            "COMP_CWORD": str(option.count(" ")),
        }
        code = "from pellucid.cli.main import main; main(prog_name='pellucid', complete_var='_PELLUCID_COMPLETE')"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment(**more),
            cwd=tmp_path,
        )
        return done.stdout.split()

    assert complete("smol") == ["plain,smollm2-135m-instruct"]
    assert complete("./x") == ["file,./x"]


def test_an_output_encoding_that_cannot_hold_the_text():
    code = (
        "from pellucid.cli import main, _console\n"
        "import click\n"
        "main.main.callback = lambda: _console.write('h\\u00e9')\n"
        "main.main()"
    )
    for encoding, expected in (("utf-8", (0, "h\u00e9", "")), ("ascii", (1, "", "U+00E9"))):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, env=environment(PYTHONIOENCODING=encoding)
        )
        status, out, err = expected
        assert (done.returncode, done.stdout.decode()) == (status, out)
        assert err in done.stderr.decode()
        assert b"bug" not in done.stderr
