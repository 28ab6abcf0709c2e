"""Ctrl-C at any moment of the start: exit code 130 and no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_support import ENDLESS, HANGS, environment, run

from pellucid.cli.main import Commands, main

# Writes a dot when the entry point has set its handler: what comes before that is Python's own start.
BEGIN = """
import gc, os
gc.set_threshold = lambda number: os.write(1, b".")
from pellucid.cli._start import main
main()
"""


@pytest.mark.parametrize("delay", [0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.2])
def test_ctrl_c_while_the_command_line_starts(tiny: Path, delay: float) -> None:
    args = ["generate", "-m", str(tiny), *ENDLESS, "hello"]
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None and process.stdout.read(1) == b"."
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 130 and b"Traceback" not in errors, (delay, errors)


def test_ctrl_c_amid_the_making_of_a_class(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Field:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Commands, "get_command", lambda self, ctx, name: type("Made", (), {"field": Field()}))
    with pytest.raises(SystemExit) as caught:
        main(["anything"], prog_name="pellucid")
    assert caught.value.code == 130
    assert capsys.readouterr().err == ""


def test_ctrl_c_amid_a_finaliser_is_not_lost() -> None:
    script = """
import sys, time
from pellucid.cli import _start
sys.unraisablehook = _start._again
class Ends:
    def __del__(self):
        raise KeyboardInterrupt
try:
    Ends()
    while True:  # no single long sleep: CPython misses a signal that comes just before one begins
        time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=environment(), timeout=HANGS
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"interrupted\n", b"")


def test_samples_that_are_the_same_are_noted(tiny: Path) -> None:
    args = ("generate", "-m", str(tiny), "--threads", "1", "--max-tokens", "2", "--n", "2", "a")
    assert b"all samples are the same" in run(*args).stderr
    assert b"all samples" not in run(*args, "--temperature", "1").stderr
