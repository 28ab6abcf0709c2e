"""`pellucid explain` from the shell."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

from cli_support import run

from pellucid import LLM


def test_plain_text_in_a_pipe(tiny):
    done = run("explain", "the quick", "--model", str(tiny), "--max-tokens", "2", "--ignore-eos")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "The text becomes tokens" and max(map(len, lines)) <= 80
    assert sum(line.startswith("Turn ") for line in lines) == 2
    assert b"\x1b" not in done.stdout


def test_a_turn_is_told_when_it_is_done(invoke, tiny, monkeypatch):
    """What stands on stdout when the next turn, or the check, begins; together it is the whole story."""
    from pellucid.glass import explain as module

    seen = []

    def watched(function):
        def call(*arguments):
            seen.append(sys.stdout.buffer.getvalue().decode())
            return function(*arguments)

        return call

    arguments = {"max_tokens": 3, "ignore_eos": True}
    with monkeypatch.context() as patched:
        patched.setattr(module, "_pass", watched(module._pass))
        patched.setattr(module, "_check", watched(module._check))
        done = invoke("explain", "the quick", "--model", tiny, "--max-tokens", "3", "--ignore-eos")
    assert done.exit_code == 0, done.stderr
    assert [text.count("\nTurn ") for text in seen] == [0, 1, 2, 3]
    assert seen[0].startswith("The text becomes tokens\n")
    for text, more in pairwise([*seen, done.stdout]):
        assert more.startswith(text) and len(more) > len(text) and text.endswith("\n")
    with LLM(tiny) as llm:
        assert done.stdout == str(module.explain(llm, "the quick", **arguments)) + "\n"


def test_json(tiny):
    done = run(
        "explain", "--json", "--model", str(tiny), "--top-k", "1", "--temperature", "1", stdin="the quick"
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert 1 <= len(data["passes"]) <= 3 and all(data["check"]["same"])
    assert data["passes"][0]["choice"]["margin"] is None, "one token was left: an infinite margin is null"


def test_chat(tiny_chat):
    done = run("explain", "--chat", "hello", "--json", "--model", str(tiny_chat), "--max-tokens", "1")
    assert done.returncode == 0, done.stderr
    prompt = "".join(token["text"] for token in json.loads(done.stdout)["prompt"])
    assert prompt.endswith("user:hello\nassistant:")


def test_errors(tiny):
    for words, message in (
        (["explain", "x", "--rows", "0"], b"--rows"),
        (["explain", "x", "--deadline", "3"], b"deadline=3.0 is for generate"),
        (["explain", "x", "--n", "2"], b"one sample"),
        (["explain", "x", "--logprobs", "2"], b"No such option '--logprobs'"),
        (["explain", ""], b"empty"),
    ):
        done = run(*words, "--model", str(tiny))
        assert done.returncode == 2 and message in done.stderr, (words, done.stderr)
        assert done.stderr.count(b"\n") == 1 and not done.stdout
