import io
import json
import os
import shutil
import unicodedata

import pytest

from pellucid.cli import _console, _json
from pellucid.cli._options import ByteSize
from pellucid.errors import UsageError
from pellucid.glass.words import quoted
from pellucid.tui.style import visible


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Numbered(io.StringIO):
    def fileno(self):
        return 1


def test_a_model_cannot_steer_the_terminal():
    hostile = "\x1b]52;c;eA==\x07 \x9b2J \x7f \r tab\there\nnext"
    shown = _console.harmless(hostile)
    assert not [c for c in shown if (ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160]
    assert shown.endswith("tab\there\nnext")
    assert len(shown) == len(hostile)
    assert _console.visible("a\tb\n") == "a␉b␊"


def test_no_way_to_a_terminal_lets_anything_through_that_steers_it():
    """Of all characters: controls, and those with Unicode's property Bidi_Control, as its own data tell them."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    marks = {"LEFT-TO-RIGHT MARK", "RIGHT-TO-LEFT MARK", "ARABIC LETTER MARK"}
    steering = [
        c
        for c in map(chr, range(0x110000))
        if unicodedata.category(c) == "Cc"
        or unicodedata.bidirectional(c) in turning
        or unicodedata.name(c, "") in marks
    ]
    assert len(steering) == 65 + 12
    every = "".join(steering)
    assert not set(_console.harmless(every)) & (set(steering) - {"\t", "\n"})
    for one_line in (_console.visible, visible, quoted):
        assert not set(one_line(every)) & set(steering), one_line
    for c in steering:
        assert _console.visible(c) != "" != _console.harmless(c), "left out in silence"
    plain = "שלום مرحبا 👩‍👩‍👧 a\u0301 — €"  # writing from right to left, and joiners, stay
    assert _console.harmless(plain) == plain == _console.visible(plain)


def test_json_on_a_terminal_steers_nothing_and_says_the_same(monkeypatch):
    value = {"text": "".join(map(chr, range(0x300))) + "\u202e \u2066\u200e", "value": float("-inf")}
    expected = {**value, "value": None}
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stdout", stream)
        for indent in (None, 2):
            _json.write(value, indent)
            written = stream.getvalue()
            stream.seek(0)
            stream.truncate()
            assert json.loads(written) == expected
            steers = _console.harmless(written) != written
            assert steers == (not stream.isatty()) and written.count("\n") == (1 if indent is None else 4)


def test_an_error_cannot_steer_the_terminal(invoke):
    for arguments in (["info", "no\x1b[2Jsuch\u202emodel.gguf"], ["no\x1b[2Jsuch\u202ecommand"]):
        told = invoke(*arguments)
        assert told.exit_code == 2 and "[2Jsuch" in told.stderr
        assert _console.harmless(told.stderr) == told.stderr


def test_write_cleans_for_a_terminal_and_keeps_bytes_for_a_pipe(monkeypatch):
    text = "\x1b[1m\u202eab\u2066"
    for stream, expected in ((Terminal(), "␛[1m\ufffdab\ufffd"), (io.StringIO(), text)):
        monkeypatch.setattr("sys.stdout", stream)
        _console.write(text)
        assert stream.getvalue() == expected


@pytest.mark.parametrize("said", [None, "", "0", "-3", "33", " 44 ", "wide"])
@pytest.mark.parametrize("terminal", [None, 0, 55])
def test_columns_are_those_of_shutil(monkeypatch, said, terminal):
    def size(number):
        if terminal is None:
            raise OSError("no terminal")
        return os.terminal_size((terminal, 20))

    monkeypatch.setattr(os, "get_terminal_size", size)
    monkeypatch.setattr("sys.__stdout__", Numbered())
    monkeypatch.delenv("COLUMNS", raising=False)
    if said is not None:
        monkeypatch.setenv("COLUMNS", said)
    for default in (80, 100):
        assert _console.columns(default) == shutil.get_terminal_size((default, 24)).columns
    monkeypatch.setattr("sys.__stdout__", None)
    assert _console.columns(70) == shutil.get_terminal_size((70, 24)).columns


def test_color_only_where_it_is_wanted(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert _console.use_color(Terminal())
    assert not _console.use_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not _console.use_color(Terminal())
    assert _console.styled("x", Terminal(), fg="red") == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not _console.use_color(Terminal())


def test_where_a_prompt_comes_from(monkeypatch, tmp_path):
    def stdin(data, terminal=False):
        stream = io.TextIOWrapper(io.BytesIO(data))
        stream.isatty = lambda: terminal
        monkeypatch.setattr("sys.stdin", stream)

    file = tmp_path / "prompt"
    file.write_bytes("é\n".encode())
    stdin(b" piped\r\n")
    assert _console.read_text(None, "argument") == "argument"
    assert _console.read_text(str(file), None) == "é\n"
    assert _console.read_text(None, None) == " piped\r\n"
    stdin(b"dash", terminal=True)
    assert _console.read_text(None, "-") == "dash"
    stdin(b"dash", terminal=True)
    assert _console.read_text("-", None) == "dash"
    stdin(b"", terminal=True)
    assert _console.read_text(None, None) is None
    stdin(b"ab\xff")
    with pytest.raises(UsageError, match="stdin: not UTF-8 text at byte 2"):
        _console.read_text(None, None)
    with pytest.raises(UsageError, match="not both"):
        _console.read_text(str(file), "argument")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("1000", 1000),
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("1.5k", 1536),
        ("3 GiB", 3 << 30),
        ("2gb", 2 << 30),
    ],
)
def test_byte_sizes(text, number):
    assert ByteSize().convert(text, None, None) == number
