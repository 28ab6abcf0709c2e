"""`pellucid tokenize` and `pellucid info`, held against the tokenizer and the checkpoint."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from cli_support import environment, read_all, run

from pellucid import load_tokenizer

TEXT = "hello  é\n<|end|>\ttail "


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return load_tokenizer(tiny)


def test_ids(invoke, tiny, tokenizer):
    ids = tokenizer.encode(TEXT)
    assert 1 not in ids  # the user's text never becomes a control token
    for args, stdin in (([TEXT], None), ([], TEXT), (["-"], TEXT)):
        result = invoke("tokenize", "-m", tiny, "--ids", *args, stdin=stdin)
        assert result.stdout.split() == [str(token) for token in ids]
        assert result.stderr == ""


def test_parse_special_and_bos(invoke, tiny, tokenizer):
    ids = [
        int(word) for word in invoke("tokenize", "-m", tiny, "--ids", "--parse-special", TEXT).stdout.split()
    ]
    assert ids == tokenizer.encode(TEXT, parse_special=True)
    assert 1 in ids
    ids = [int(word) for word in invoke("tokenize", "-m", tiny, "--ids", "--bos", TEXT).stdout.split()]
    assert ids == [0, *tokenizer.encode(TEXT)]


def test_lines_of_id_and_piece(invoke, tiny, tokenizer):
    result = invoke("tokenize", "-m", tiny, TEXT)
    ids = tokenizer.encode(TEXT)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [(int(row[0]), row[1]) for row in rows] == [(token, tokenizer.piece(token)) for token in ids]
    assert result.stderr == f"{len(ids)} tokens\n"


def test_json(invoke, tiny, tokenizer):
    data = json.loads(invoke("tokenize", "-m", tiny, "--json", TEXT).stdout)
    ids = tokenizer.encode(TEXT)
    assert data == {
        "text": TEXT,
        "ids": ids,
        "pieces": [tokenizer.piece(token) for token in ids],
        "num_tokens": len(ids),
    }


def test_decode_gives_the_very_bytes(tiny, tokenizer):
    ids = [str(token) for token in tokenizer.encode(TEXT)]
    assert run("tokenize", "-m", str(tiny), "--decode", *ids).stdout == TEXT.encode()
    assert run("tokenize", "-m", str(tiny), "--decode", stdin=f"[{', '.join(ids)}]\n").stdout == TEXT.encode()


@pytest.mark.parametrize("word", ["320", "-1", "x", "1.5", "99999999999"])
def test_decode_refuses_what_is_no_id(invoke, tiny, word):
    result = invoke("tokenize", "-m", tiny, "--decode", "--", "5", word)
    assert result.exit_code == 2
    assert f"'{word}'" in result.stderr
    assert result.stdout == ""


def test_colours_on_a_terminal_only(tiny):
    for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "pellucid", "tokenize", "-m", str(tiny), "hello"]
        env = environment(TERM="xterm", **extra)
        done = subprocess.run(
            command, stdout=slave, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env
        )
        os.close(slave)
        out = read_all(master)
        os.close(master)
        assert done.returncode == 0, done.stderr
        assert (b"\x1b[" in out) == coloured
    assert b"\x1b[" not in run("tokenize", "-m", str(tiny), "hello", TERM="xterm").stdout


def test_info_tells_the_file(invoke, tiny):
    data = json.loads(invoke("info", tiny, "--json", "--context", "100").stdout)
    import gguf

    reader = gguf.GGUFReader(tiny)
    assert data["num_parameters"] == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert data["weight_bytes"] == sum(int(tensor.n_bytes) for tensor in reader.tensors)
    assert {name: share["num_tensors"] for name, share in data["formats"].items()} == {
        "F32": len(reader.tensors)
    }
    assert (data["architecture"], data["context_length"], data["vocabulary_size"]) == ("llama", 1024, 320)
    assert (data["has_chat_template"], data["eos_ids"]) == (False, [1])
    assert data["special_tokens"] == {"<|begin|>": [0], "<|end|>": [1]}
    per_token = 4 * sum(2 * layer["num_kv_heads"] * layer["head_dim"] for layer in data["layers"])
    assert data["memory_bytes"] == {
        "context": 100,
        "kv_format": "f32",
        "weights": data["weight_bytes"],
        "kv": 100 * per_token,
    }


def test_info_for_people(invoke, tiny, tiny_chat):
    text = invoke("info", tiny).stdout
    for words in ("llama (gguf)", "chat template      no", "1,024 tokens", "<|end|> 1"):
        assert words in text
    text = invoke("info", tiny_chat).stdout
    for words in ("llama (safetensors)", "chat template      yes", "temperature=0.6", "--model-defaults"):
        assert words in text


def test_info_refuses_a_longer_context(invoke, tiny):
    result = invoke("info", tiny, "--context", "1025")
    assert result.exit_code == 2
    assert "1 to 1024" in result.stderr


def test_info_on_a_narrow_terminal(tiny):
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    env = {k: v for k, v in environment(TERM="dumb").items() if k not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "pellucid", "info", str(tiny)]
    done = subprocess.run(command, stdout=slave, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env)
    os.close(slave)
    lines = read_all(master).decode().splitlines()
    os.close(master)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in lines if "/" not in line) <= 40
