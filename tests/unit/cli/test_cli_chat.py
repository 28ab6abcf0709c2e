"""`pellucid chat`: the conversation with a scripted model, and the command on a tiny one."""

from __future__ import annotations

import math
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
from cli_support import HANGS, environment, run

from pellucid import LLM
from pellucid.cli import _lines
from pellucid.cli._conversation import COMMANDS, Conversation, Leave, help_text
from pellucid.errors import UsageError

SAMPLING = {"max_tokens": 8, "ignore_eos": True}


@pytest.fixture(scope="module")
def llm(tiny_chat):
    with LLM(tiny_chat) as loaded:
        yield loaded


@pytest.fixture
def chat(llm):
    return Conversation(llm, None, dict(SAMPLING), False, False)


def test_each_turn_sees_the_ones_before(chat, llm, capsys):
    chat.turn("one")
    first = llm.chat([{"role": "user", "content": "one"}], **SAMPLING)
    assert capsys.readouterr().out.rstrip("\n") == first.text.rstrip("\n")
    chat.turn("two")
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "two"},
    ]
    second = llm.generate(chat.chat.turns[1].prompt.ids, **SAMPLING)  # the first answer as it was generated
    assert chat.chat.messages == [*messages, {"role": "assistant", "content": second.text}]


def test_commands(chat, capsys):
    chat.turn("/system Be brief.")
    chat.turn("hi")
    assert [m["content"] for m in chat.chat.messages[:2]] == ["Be brief.", "hi"]
    chat.turn("/reset")
    assert len(chat.chat) == 0
    chat.turn("/set temperature 0.5")
    chat.turn("/set stop END")
    assert chat.sampling == {**SAMPLING, "temperature": 0.5, "stop": ("END",)}
    chat.turn("/set temperature")
    assert "temperature" not in chat.sampling
    capsys.readouterr()
    chat.turn("/settings")
    assert "max_tokens" in capsys.readouterr().err
    chat.turn("/help")
    assert "/reset" in capsys.readouterr().err
    chat.turn("   ")
    assert len(chat.chat) == 0
    chat.turn("//etc/hosts")
    assert chat.chat.messages[1]["content"] == "/etc/hosts"
    with pytest.raises(Leave):
        chat.turn("/exit")


def test_back_and_forth(chat, capsys, tmp_path):
    for text in ("one", "two", "three"):
        chat.turn(text)
    first = chat.chat.tokens
    chat.turn("/fork")
    chat.turn("four")
    chat.turn("/undo 2")
    assert len(chat.chat) == 2
    chat.turn("/edit TWO")
    chat.turn("/edit #1 ONE")
    assert [m["content"] for m in chat.chat.messages if m["role"] == "user"] == ["ONE"]
    chat.turn("/regenerate 5")
    capsys.readouterr()
    chat.turn("/branches")
    table = capsys.readouterr().err.splitlines()
    assert len(table) == len(chat.chat.branches) == 5 and [line[0] for line in table] == [*"    *"]
    chat.turn("/switch 0")
    assert chat.chat.tokens == first
    chat.turn(f"/save {tmp_path / 'c'}")
    chat.turn("/undo")
    for options in ("", "--no-kv "):
        chat.turn(f"/load {options}{tmp_path / 'c'}")
        assert chat.chat.tokens == first
    with pytest.raises(UsageError, match="give the name of a file"):
        chat.turn("/load --no-kv")
    capsys.readouterr()
    chat.turn("/tokens")
    assert f"{len(first)} of " in capsys.readouterr().err
    with pytest.raises(UsageError, match="nothing is recorded"):
        chat.turn("/why")


def test_why(chat, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    chat.turn("/set temperature 0.8")
    chat.turn("one")
    turn = chat.chat.turns[-1]
    capsys.readouterr()
    chat.turn("/why 3")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and all(len(line) <= 50 for line in lines[:4])
    for line, token in zip(lines[1:4], turn.result.logprobs[-3:], strict=True):
        assert (
            f"{math.exp(token.logprob):5.3f}" in line and f"{math.exp(token.processed_logprob):5.3f}" in line
        )
    chat.turn("/why all")
    assert len(capsys.readouterr().err.splitlines()) == 1 + len(turn.token_ids)


@pytest.mark.parametrize("width", [20, 40, 80])
def test_help_fits_and_names_every_command(width):
    text = help_text(width)
    assert all(f"/{name}" in text for name in COMMANDS)
    assert all(hasattr(Conversation, f"_{name}") for name in COMMANDS)


@pytest.mark.parametrize(
    "line",
    [
        "/nothing",
        "/set",
        "/set temperature hot",
        "/set temperature -1",
        "/set nothing 1",
        "/undo",
        "/undo x",
        "/undo 0",
        "/edit",
        "/edit x",
        "/edit #1 x",
        "/fork",
        "/switch",
        "/switch 7",
        "/save",
        "/load",
        "/why",
        "/regenerate",
        "/help me",
        "/branches 1",
    ],
)
def test_wrong_commands_change_nothing(chat, line):
    with pytest.raises(UsageError):
        chat.turn(line)
    assert chat.sampling == SAMPLING
    assert len(chat.chat) == 0


def test_a_turn_that_does_not_fit_leaves_the_conversation(chat, llm):
    chat.turn("one")
    before = chat.chat.tokens
    with pytest.raises(UsageError.__mro__[1]):  # PellucidError
        chat.turn("x" * 2 * llm.context_length)
    assert chat.chat.tokens == before


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(chat, llm, monkeypatch):
    monkeypatch.setattr("pellucid.cli._console.is_terminal", lambda stream: True)
    chat.chat.set_params(ignore_eos=True)
    engine, original, taken = llm._loaded.engine, llm._loaded.engine._forward, []

    def forward(*args, **kwargs):
        taken.append(1)
        if len(taken) == 5:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(engine, "_forward", forward)
    chat.turn("one")
    assert len(taken) == 5
    assert [message["role"] for message in chat.chat.messages] == ["user", "assistant"]
    monkeypatch.setattr(engine, "_forward", original)
    chat.chat.set_params(**SAMPLING)
    chat.turn("two")
    assert len(chat.chat.messages) == 4


def test_a_pipe_is_a_turn_a_line(tiny_chat, llm, tmp_path):
    args = ("chat", "-m", str(tiny_chat), "--max-tokens", "8", "--ignore-eos")
    done = run(*args, stdin="one\n", XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    text = llm.chat([{"role": "user", "content": "one"}], **SAMPLING).text
    assert done.stdout.decode().rstrip("\n") == text.rstrip("\n")
    assert not list(tmp_path.iterdir())  # no history of a pipe
    wrong = run(*args, stdin="/nothing\none\n", XDG_STATE_HOME=str(tmp_path))
    assert wrong.returncode == 2
    assert len(wrong.stderr.decode().splitlines()) == 1


def test_history_is_kept_for_its_owner_alone(tmp_path, monkeypatch):
    class FakeReadline:
        def set_history_length(self, length): ...

        def read_history_file(self, path): ...

        def write_history_file(self, path):
            path.write_text("secret\n")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = _lines.history_file()
    assert file == tmp_path / "pellucid" / "chat_history"
    reader = _lines.LineReader(file)
    reader._readline = FakeReadline()
    reader.close()
    assert file.read_text() == "secret\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_lines_go_on_after_a_backslash(monkeypatch, tmp_path):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("one\\\ntwo\nthree\n"))
    reader = _lines.LineReader(tmp_path / "history")
    assert [reader.read("> ") for _ in range(3)] == ["one\ntwo", "three", None]
    monkeypatch.setattr("sys.stdin", io.StringIO('"""\none\n\n two\n"""\n"""x"""\nthree\n"""four\nfive'))
    assert [reader.read("> ") for _ in range(5)] == ["one\n\n two", "x", "three", "four\nfive", None]


def read_until(fd: int, wanted: bytes, seconds: float = HANGS) -> bytes:
    """All that comes until `wanted` is among it, or its other side is closed, or so long nothing came (an error)."""
    seen = b""
    while wanted not in seen:
        ready, _, _ = select.select([fd], [], [], seconds)
        assert ready, f"waited {seconds} s for {wanted!r}, saw {seen!r}"
        try:
            seen += os.read(fd, 4096)
        except OSError:  # the other side is closed
            break
    return seen


def interrupt_until(fd: int, wanted: bytes) -> None:
    """Ctrl-C until that comes: CPython's input() misses a signal that comes just before it waits for a key."""
    seen, end = b"", time.monotonic() + HANGS
    while wanted not in seen and time.monotonic() < end:
        os.write(fd, b"\x03")
        while wanted not in seen and select.select([fd], [], [], 1.0)[0]:
            seen += os.read(fd, 4096)
    assert wanted in seen


def test_on_a_terminal(tiny_chat, tmp_path):
    """A pseudo-terminal: prompt, answer, Ctrl-C in an answer, Ctrl-C at the prompt, history, Ctrl-D."""
    master, slave = pty.openpty()
    env = environment(XDG_STATE_HOME=str(tmp_path), TERM="dumb")
    command = [
        sys.executable,
        "-m",
        "pellucid",
        "chat",
        "-m",
        str(tiny_chat),
        "--ignore-eos",
        "--allowed-ids",
        "103,104",
    ]

    def take_terminal():
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=env, preexec_fn=take_terminal
    )
    os.close(slave)
    try:
        read_until(master, b"\r\n> ")
        os.write(master, b"hello\n")
        seen = read_until(master, b"hello\r\n")
        while seen.endswith(b"hello\r\n"):  # its first character: the answer has begun
            seen += os.read(master, 4096)
        os.write(master, b"\x03")
        seen = read_until(master, b"\r\n> ")
        assert b"(stopped)" in seen or b"(stopped: context)" in seen
        interrupt_until(master, b"(Ctrl-D leaves)\r\n> ")
        os.write(master, b"\x04")
        assert process.wait(HANGS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    history = tmp_path / "pellucid" / "chat_history"
    assert "hello" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
