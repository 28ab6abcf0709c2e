"""`pellucid score`, `rank` and `perplexity`, held against the library."""

from __future__ import annotations

import json

import pytest
from cli_support import run

from pellucid import LLM


def test_score(invoke, tiny):
    args = ("score", "-m", tiny, "One day", " the", " a cat", "--pmi")
    told = json.loads(invoke(*args, "--json").stdout)
    with LLM(tiny) as llm:
        scores = llm.score("One day", [" the", " a cat"], unconditional="")
    assert [each["logprob"] for each in told["scores"]] == [each.logprob for each in scores]
    assert [each["pmi"] for each in told["scores"]] == [each.pmi for each in scores]
    lines = invoke(*args).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"{each.logprob:.4f}" for each in scores]
    assert invoke("score", "-m", tiny, "One day", "").exit_code == 2


def test_perplexity(invoke, tiny, tmp_path):
    text = "It was a bright cold day in April.\n"
    (tmp_path / "text").write_text(text)
    told = json.loads(
        invoke("perplexity", tmp_path / "text", "-m", tiny, "--window", 9, "--stride", 4, "--json").stdout
    )
    with LLM(tiny) as llm:
        result = llm.perplexity(text, window=9, stride=4)
    assert told["logprob"] == result.logprob and told["bits_per_byte"] == result.bits_per_byte
    empty = tmp_path / "empty"
    empty.write_text("")
    assert invoke("perplexity", empty, "-m", tiny).exit_code == 2


ITEMS = [
    {"id": "a", "context": "One day", "choices": ["the", "a cat", "é"], "gold": 1},
    {"context": [5, 6, 7], "continuations": [[8], [9, 10]], "gold": 0},
    {"context": "x", "continuations": ["y"], "nonsense": 1},
    {"id": 7, "context": "", "continuations": ["end", ""]},
    {"context": "Two", "continuations": ["days", "nights"]},
    {"context": "One day", "choices": ["never", "the"], "gold": 0},
]


def write_items(path, items=ITEMS):
    path.write_text("\n\n".join(json.dumps(item) for item in items) + "\n")  # empty lines are no items
    return path


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_of_items(invoke, tiny, tmp_path):
    source = write_items(tmp_path / "items")
    done = invoke("score", "-m", tiny, "--file", source, "--delimiter", " ", "--pmi", "--tokens")
    found = lines_of(done.stdout)
    assert done.exit_code == 1 and [line["index"] for line in found] == [0, 2, 4, 6, 8, 10]
    assert [line["id"] for line in found] == ["a", None, None, 7, None, None]
    messages = [line["error"]["message"] for line in found if "error" in line]
    assert messages[0].startswith("line 5: no field 'nonsense'")
    right = dict.fromkeys(("logprob", "per_token", "per_character", "per_byte", "pmi"), 0)
    with LLM(tiny) as llm:
        for line, item in zip(found, ITEMS, strict=True):
            given = item.get("choices", item.get("continuations"))
            if "error" in line:
                continue
            delimited = [" " + each if isinstance(each, str) else each for each in given]
            scores = llm.score(item["context"], delimited, unconditional="")
            for told, score, text in zip(line["scores"], scores, given, strict=True):
                assert told["logprob"] == score.logprob and told["pmi"] == score.pmi
                assert told["token_ids"] == list(score.token_ids) and told["greedy"] == score.greedy
                if isinstance(text, str):  # as acc_norm and acc_bytes: without the delimiter
                    assert told["per_character"] == score.logprob / len(text)
                    assert told["per_byte"] == score.logprob / len(text.encode())
            for name in right:
                values = [told[name] for told in line["scores"]]
                assert line["best"].get(name) == (None if None in values else values.index(max(values)))
                right[name] += "gold" in item and line["best"].get(name) == item["gold"]
    assert f"accuracy over 3 lines with gold: logprob {right['logprob'] / 3:.4f}" in done.stderr
    assert f"per_character {right['per_character'] / 2:.4f}" in done.stderr
    assert "6 lines run, 0 done before, 2 with errors" in done.stderr


def test_an_empty_continuation_is_its_lines_error(invoke, tiny, tmp_path):
    done = invoke("rank", "-m", tiny, "--file", write_items(tmp_path / "items"))
    errors = {line["index"]: line["error"]["message"] for line in lines_of(done.stdout) if "error" in line}
    assert sorted(errors) == [4, 6] and errors[6] == (
        "line 7: continuation 1 is empty; give at least one token or character"
    )


@pytest.mark.parametrize("name", ["score", "rank"])
def test_a_file_is_continued_with_the_same_bytes(invoke, tiny, tmp_path, name):
    """Whatever a kill left, the next run adds the rest, and the accuracy is of all lines."""
    source = write_items(tmp_path / "items")
    args = (name, "-m", tiny, "--file", source, "-o", tmp_path / "out")
    first = invoke(*args)
    whole = (tmp_path / "out").read_bytes()
    accuracy = [line for line in first.stderr.splitlines() if "accuracy" in line]
    assert len(accuracy) == 1
    for size in (0, 1, whole.index(b"\n") + 1, len(whole) - 1):
        (tmp_path / "out").write_bytes(whole[:size])
        again = invoke(*args)
        assert again.exit_code == 1 and (tmp_path / "out").read_bytes() == whole
        assert [line for line in again.stderr.splitlines() if "accuracy" in line] == accuracy
    assert "all done before" in invoke(*args).stderr
    other = invoke(*args, "--delimiter", " ")
    assert other.exit_code == 2 and "give --overwrite" in other.stderr
    assert invoke(*args, "--delimiter", " ", "--overwrite").exit_code == 1
    (tmp_path / "out").write_text("my notes\n")
    assert "no result line" in invoke(*args).stderr


def test_a_pipe_of_items(tiny):
    data = "".join(json.dumps(item) + "\n" for item in ITEMS[:2] * 100)
    done = run("rank", "-m", str(tiny), "--file", "-", "--by", "per_token", stdin=data)
    found = lines_of(done.stdout.decode())
    assert done.returncode == 0 and len(found) == 200
    with LLM(tiny) as llm:
        for line, item in zip(found, ITEMS[:2] * 100, strict=True):
            texts = item.get("choices", item.get("continuations"))
            assert line["ranking"] == llm.rank(item["context"], texts, by="per_token")
            assert line["best"] == {"per_token": line["ranking"][0]}
            assert line["per_token"] == sorted(line["per_token"], reverse=True)
    assert b"accuracy over 200 lines with gold: per_token" in done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1]", "expected a JSON object"),
        ("{", "not JSON"),
        ('{"context": "a"}', "either continuations or choices"),
        ('{"context": "a", "choices": ["b"], "continuations": ["b"]}', "either continuations or choices"),
        ('{"context": "a", "choices": "b"}', "choices: expected a list"),
        ('{"context": "a", "choices": [true]}', "choices: expected a list"),
        ('{"context": 5, "choices": ["a"]}', "context: expected a text"),
        ('{"context": "a", "choices": ["b"], "gold": 1}', "gold: expected an index from 0 to 0"),
        ('{"context": "a", "choices": ["b"], "gold": true}', "gold: expected an index"),
        ('{"context": "a", "choices": ["b", [5]]}', "continuation 1: context and continuation"),
        ('{"context": [999], "choices": [[5]]}', "outside the vocabulary"),
        ('{"context": "a", "choices": ["b"], "id": 1.5}', "id: expected"),
    ],
)
def test_lines_that_are_wrong(invoke, tiny, line, words):
    done = invoke("score", "-m", tiny, "--file", "-", stdin="\n" + line + "\n")
    (found,) = lines_of(done.stdout)
    assert done.exit_code == 1 and found["index"] == 1
    assert found["error"]["message"].startswith("line 2: ") and words in found["error"]["message"]


def test_rank(invoke, tiny):
    texts = (" the", " a cat", " é")
    with LLM(tiny) as llm:
        for by in ("logprob", "per_character", "pmi"):
            base = "" if by == "pmi" else None
            wanted = llm.rank("One day", texts, by=by, unconditional=base)
            told = json.loads(invoke("rank", "-m", tiny, "One day", *texts, "--by", by, "--json").stdout)
            assert told["ranking"] == wanted and told["texts"] == [texts[i] for i in wanted]
            lines = invoke("rank", "-m", tiny, "One day", *texts, "--by", by).stdout.splitlines()
            assert [int(line.split()[0]) for line in lines] == wanted


def test_what_truncation_drops_is_said(invoke, tiny):
    context = "once upon a time " * 9
    for name in ("score", "rank"):
        for more in ((), ("--json",)):
            done = invoke(name, "-m", tiny, "--context", 20, context, "x", "--truncate", *more)
            assert done.exit_code == 0, done.stderr
            with LLM(tiny, context_length=20) as llm:
                (score,) = llm.score(context, ["x"], truncate=True)
            assert done.stderr == f"{score.num_dropped} tokens of the context were dropped\n"
        assert invoke(name, "-m", tiny, "--context", 20, context, "x").exit_code == 2


def test_arguments_or_a_file(invoke, tiny, tmp_path):
    for args in (
        ("One day",),
        (),
        ("a", "b", "-o", tmp_path / "x"),
        ("a", "b", "--file", "-"),
        ("a", "b", "--tokens"),
    ):
        assert invoke("score", "-m", tiny, *args).exit_code == 2
    assert invoke("rank", "-m", tiny, "--file", tmp_path / "none").exit_code == 2
