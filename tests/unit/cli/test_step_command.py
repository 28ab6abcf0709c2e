"""`pellucid step` from the shell: what it needs, and a session in a real terminal of 80 x 24 with 16 colours."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys

import pytest
from cli_support import HANGS, environment, run

pty = pytest.importorskip("pty", reason="no pseudo-terminals here")


def test_without_a_terminal(tiny):
    pytest.importorskip("textual")
    done = run("step", "hello", "--model", str(tiny))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(b"pellucid: error: step needs a terminal") and done.stderr.count(b"\n") == 1


def test_without_textual(tiny):
    code = "import sys; sys.modules['textual'] = None; from pellucid.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "step", "x", "--model", str(tiny)],
        capture_output=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert done.stderr == b"pellucid: error: step needs the package textual: pip install 'pellucid[tui]'\n"


@pytest.mark.parametrize(
    "words, message",
    [
        ([], b"no prompt"),
        (["-"], b"stdin brings the keys"),
        (["x", "--load", "y"], b"--load brings its own text"),
        (["--load", "y", "--model-defaults"], b"--model-defaults is about a prompt, and --load"),
        (["--load", "y", "--system", "z"], b"--system is about a prompt, and --load"),
        (["x", "--system", "y"], b"add --chat"),
        (["x", "--chat", "--parse-special"], b"--parse-special does not go with --chat"),
    ],
)
def test_contradictions(words, message):
    pytest.importorskip("textual")
    done = run("step", *words)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count(b"\n") == 1


def session(keys_after, *words, rows=24, columns=80):
    """Runs `pellucid step` in a terminal: [(what must have been written, keys to send then)]; (exit code, all that
    it wrote)."""
    import fcntl
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = environment(TERM="xterm", LANG="C.UTF-8")
    for name in ("COLORTERM", "NO_COLOR", "TERM_PROGRAM"):
        env.pop(name, None)
    command = [sys.executable, "-m", "pellucid", "step", *words]
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=env, start_new_session=True
    )
    os.close(follower)
    written, seen = b"", 0
    try:
        for expected, keys in keys_after:
            while expected not in written[seen:]:
                written += os.read(leader, 65536)  # blocks until there is more; an error where it has ended
            seen = len(written)
            os.write(leader, keys)  # the screen that this leads to comes after `seen`
        while True:
            try:
                written += os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
        return process.wait(HANGS), written
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def test_in_a_terminal(tiny):
    """Steps, sees the distribution, leaves; 16 colours only, no mouse, and the screen is given back."""
    pytest.importorskip("textual")
    code, written = session(
        [(b"entropy", b"s"), (b"entropy", b"q")], "hello", "--model", str(tiny), "--ignore-eos"
    )
    assert code == 0 and b"error" not in written
    assert b"\x1b[?1049h" in written and b"\x1b[?1049l" in written, "the other screen, and back"
    for mouse in (b"\x1b[?1000h", b"\x1b[?1002h", b"\x1b[?1003h", b"\x1b[?1015h", b"\x1b[?1006h"):
        assert mouse not in written
    colours = re.findall(rb"\x1b\[([0-9;]*)m", written)
    assert any(code in b";".join(colours).split(b";") for code in (b"31", b"32", b"33", b"36"))
    assert not [code for code in colours if b"38;" in code or b"48;" in code], "the terminal's own 16 colours"


def test_ctrl_c_leaves(tiny):
    pytest.importorskip("textual")
    code, written = session([(b"entropy", b"\x03")], "hello", "--model", str(tiny))
    assert code == 0 and b"\x1b[?1049l" in written


def test_load_goes_on(tiny, tmp_path):
    pytest.importorskip("textual")
    from pellucid import LLM

    with LLM(tiny) as llm:
        generation = llm.begin("once upon", temperature=1.0, seed=3)
        generation.run(4)
        generation.fork(seed=9)
        generation.save(tmp_path / "a.session")
    code, written = session([(b"entropy", b"q")], "--load", str(tmp_path / "a.session"), "--model", str(tiny))
    assert code == 0 and b"seed=3" in written


def test_a_damaged_file_is_one_line(tiny, tmp_path):
    pytest.importorskip("textual")
    (tmp_path / "bad").write_bytes(b"nothing")
    code, written = session([], "--load", str(tmp_path / "bad"), "--model", str(tiny))
    assert code == 2
    assert written.startswith(b"pellucid: error: ") and written.count(b"\n") == 1
    assert b"\x1b[?1049h" not in written
