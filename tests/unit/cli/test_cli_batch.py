"""`pellucid batch`: one result a line, whatever is killed when; errors are lines; nothing unknown is accepted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_support import HANGS, environment, run

from pellucid.cli._batch_output import ResultFile
from pellucid.errors import UsageError


def write_input(path: Path, count: int) -> Path:
    rng = random.Random(count)
    lines = []
    for i in range(count):
        line = {
            "id": f"r{i}",
            "prompt": [rng.randrange(2, 300) for _ in range(rng.randrange(1, 20))],
            "seed": i,
        }
        line |= {"max_tokens": rng.randrange(1, 25), "temperature": i % 2, "n": 1 + (i % 9 == 0)}
        lines.append(json.dumps(line))
    lines.insert(3, "")  # no request
    lines[10] = '{"prompt": "a", "nonsense": 1}'
    path.write_text("\n".join(lines) + "\n")
    return path


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "pellucid", "batch", *args]


def results(data: bytes) -> list[dict]:
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """An input and what a run that nobody interrupts makes of it, in the order of the input."""
    folder = tmp_path_factory.mktemp("batch")
    source = write_input(folder / "in.jsonl", 300)
    done = run("batch", str(source), "-m", str(tiny), "--backend", "reference", "--output-order", "input")
    assert done.returncode == 1 and b"1 with errors" in done.stderr  # the nonsense
    return source, done.stdout


def test_every_line_has_one_result_and_it_is_that_of_generate(tiny: Path, whole: tuple[Path, bytes]) -> None:
    from pellucid import LLM

    source, data = whole
    found = results(data)
    assert [r["index"] for r in found] == [i for i in range(301) if i != 3]
    assert found[9]["error"]["type"] == "UsageError" and "no field 'nonsense'" in found[9]["error"]["message"]
    given = [json.loads(line) if line else {} for line in source.read_text().splitlines()]
    with LLM(tiny, backend="reference") as llm:
        for result in found[::31]:
            if "error" in result:
                continue
            line = given[result["index"]]
            assert result["id"] == line.pop("id")
            alone = llm.generate(line.pop("prompt"), **line)
            assert [s["token_ids"] for s in result["outputs"]] == [s.token_ids for s in alone.outputs]
            assert [s["text"] for s in result["outputs"]] == [s.text for s in alone.outputs]


KILLS_ITSELF = """
import os, signal
from pellucid.cli import _batch_output, _start
write, lines = _batch_output.ResultFile.write, []
def counted(self, data):
    write(self, data)
    lines.append(data)
    if len(lines) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
_batch_output.ResultFile.write = counted
_start.main()
"""


@pytest.mark.parametrize("order", ["input", "completion"])
def test_kills_at_random_moments_lose_and_repeat_nothing(
    tiny: Path, whole: tuple[Path, bytes], tmp_path: Path, order: str
) -> None:
    source, expected = whole
    out = tmp_path / "out.jsonl"
    args = [str(source), "-o", str(out), "-m", str(tiny), "--backend", "reference", "--output-order", order]
    first = subprocess.run(
        [sys.executable, "-c", KILLS_ITSELF, "batch", *args], env=environment(), timeout=HANGS
    )
    assert first.returncode == -signal.SIGKILL and out.read_bytes().count(b"\n") == 5
    rng = random.Random(order)
    for _ in range(60):
        process = subprocess.Popen(command(*args), env=environment(), stderr=subprocess.PIPE)
        before = len(out.read_bytes().splitlines())
        enough = before + rng.randrange(0, 40)
        while process.poll() is None:
            if out.read_bytes().count(b"\n") >= enough:
                time.sleep(rng.random() * 0.02)
                process.kill()
                break
            time.sleep(0.001)
        process.communicate(timeout=HANGS)
        if process.returncode == 1:
            break
        if rng.random() < 0.4 and out.stat().st_size:  # as if the power had gone amid a write
            data = out.read_bytes()
            cut = rng.randrange(1, 40)
            out.write_bytes(data[:-cut])
    assert process.returncode == 1  # after how many kills, the machine decides
    if order == "input":
        assert out.read_bytes() == expected
    else:
        key = {"key": lambda r: r["index"]}
        assert sorted(results(out.read_bytes()), **key) == sorted(results(expected), **key)
    again = run("batch", *args)
    assert b"all done before: 0 lines run, 300 done before, 1 with errors" in again.stderr


def test_every_place_where_the_file_may_be_cut(tiny: Path, whole: tuple[Path, bytes], tmp_path: Path) -> None:
    """A file that ends anywhere is read up to its last whole line."""
    _, data = whole
    out = tmp_path / "out.jsonl"
    head = data[: len(b"".join(data.splitlines(keepends=True)[:2])) + 5]
    for end in [*range(0, len(head), 5), len(head)]:
        out.write_bytes(head[:end])
        file = ResultFile(str(out), overwrite=False)
        file.close()
        assert len(file.done) == head[:end].count(b"\n")
        assert out.read_bytes() == head[: head[:end].rfind(b"\n") + 1]


@pytest.mark.parametrize(
    "text", [b"precious", b"precious\n", b'{"a": 1}\n', b"[]\n", b"\n", b'{"index": 0, "key": "x"}\n' * 2]
)
def test_a_file_of_somebody_else_is_not_touched(tmp_path: Path, text: bytes) -> None:
    out = tmp_path / "out"
    out.write_bytes(text)
    with pytest.raises(UsageError, match="is no result line"):
        ResultFile(str(out), overwrite=False)
    assert out.read_bytes() == text
    ResultFile(str(out), overwrite=True).close()
    assert out.read_bytes() == b""


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    first = ResultFile(str(tmp_path / "out"), overwrite=False)
    with pytest.raises(UsageError, match="another run"):
        ResultFile(str(tmp_path / "out"), overwrite=False)
    first.close()
    ResultFile(str(tmp_path / "out"), overwrite=False).close()


def test_what_changed_since_is_refused(tiny: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    args = [str(source), "-o", str(out), "-m", str(tiny), "--threads", "1", "--max-tokens"]
    assert run("batch", *args, "2").returncode == 0
    assert run("batch", *args, "2").returncode == 0
    other = run("batch", *args, "3")
    assert other.returncode == 2 and b"line 1 of the input, the model or the options" in other.stderr
    source.write_text('{"prompt": "a"}\n')
    shorter = run("batch", *args, "2")
    assert shorter.returncode == 2 and b"lines that" in shorter.stderr
    assert run("batch", *args, "3", "--overwrite").returncode == 0
    assert len(results(out.read_bytes())) == 1


BAD = [
    ("not json", "not JSON"),
    ("[1]", "expected a JSON object"),
    ('{"id": 1}', "either prompt or messages"),
    ('{"prompt": "a", "messages": []}', "got both"),
    ('{"prompt": "a", "id": [1]}', "id: expected"),
    ('{"prompt": "a", "temprature": 1}', "did you mean temperature"),
    ('{"prompt": "a", "temperature": NaN}', "no JSON number"),
    ('{"prompt": "a", "temperature": -1}', "temperature: expected"),
    ('{"prompt": ["a", "b"]}', "one prompt"),
    ('{"prompt": ""}', ""),
    ('{"prompt": [99999]}', "outside the vocabulary"),
    ('{"prompt": "a", "max_tokens": 5000}', "--max-tokens"),
    ('{"messages": "hi"}', "messages: expected"),
    ('{"messages": [{"role": "user", "content": "x"}]}', "template"),
    ('{"prompt": "a", "parse_special": 3}', "parse_special"),
    ('{"prompt": "a", "cache_salt": 3}', "cache_salt"),
    ('{"prompt": "a", "allowed_ids": [1], "min_tokens": 1}', "no token is left"),
    ('{"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {}}', "no field 'body'"),
    ("[" * 100_000, ""),
    ('{"prompt": "a", "functions": ["f"]}', "no field 'functions'"),
]


def test_errors_are_lines_and_name_what_is_wrong(tiny: Path) -> None:
    text = "\n".join(line for line, _ in BAD) + '\n{"prompt": "good", "max_tokens": 2, "ignore_eos": true}\n'
    done = run("batch", "-", "-m", str(tiny), "--threads", "1", "--output-order", "input", stdin=text)
    assert done.returncode == 1, done.stderr
    found = results(done.stdout)
    assert len(found) == len(BAD) + 1 and len(found[-1]["outputs"][0]["token_ids"]) == 2
    for (line, words), result in zip(BAD, found, strict=False):
        if line == '{"prompt": ""}':
            continue  # this vocabulary may add a beginning-of-text token
        assert "error" in result, line
        assert words in result["error"]["message"], (line, result["error"])
        assert "\n" not in result["error"]["message"]
    assert b"Traceback" not in done.stderr


def test_messages_and_options_for_all_lines(tiny_chat: Path) -> None:
    text = '{"messages": [{"role": "user", "content": "Hi"}]}\n{"prompt": "a", "max_tokens": 3}\n'
    args = ("-m", str(tiny_chat), "--threads", "1", "--max-tokens", "5", "--output-order", "input")
    done = run("batch", "-", *args, stdin=text)
    assert done.returncode == 0, done.stderr
    first, second = results(done.stdout)
    assert first["outputs"][0]["finish_reason"] in ("length", "eos")
    assert second["usage"]["generated_tokens"] <= 3


def test_no_input_is_no_work(tmp_path: Path) -> None:
    done = run("batch", "-", "-m", "/nowhere.gguf", stdin="\n\n")
    assert done.returncode == 0 and done.stdout == b""
    missing = run("batch", str(tmp_path / "none"))
    assert missing.returncode == 2 and b"No such file" in missing.stderr


def test_results_go_to_a_regular_file_only(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in ("/dev/full", str(pipe)):
        with pytest.raises(UsageError, match="expected a regular file, got a device or a pipe"):
            ResultFile(path, overwrite=True)


def test_no_line_of_a_named_pipe_is_lost(tiny: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = "".join(json.dumps({"prompt": [5, 6 + i], "max_tokens": 2}) + "\n" for i in range(5))
    with subprocess.Popen(["tee", str(pipe)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as writer:
        running = subprocess.Popen(
            command(str(pipe), "-m", str(tiny), "--backend", "reference"),
            stdout=subprocess.PIPE,
            env=environment(),
        )
        writer.communicate(lines.encode())
        data = running.communicate(timeout=HANGS)[0]
    assert running.returncode == 0
    assert sorted(r["index"] for r in results(data)) == [0, 1, 2, 3, 4]
