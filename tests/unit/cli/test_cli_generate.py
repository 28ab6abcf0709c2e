"""`pellucid generate` and `pellucid bench` on a tiny model, held against the Python front door."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from cli_support import ENDLESS, HANGS, environment, run

from pellucid import LLM

FREE = ("--max-tokens", "12", "--ignore-eos")


@pytest.fixture(scope="module")
def expected(tiny):
    with LLM(tiny) as llm:
        return llm.generate("hello", max_tokens=12, ignore_eos=True, logprobs=2)


@pytest.mark.parametrize("how", ["argument", "stdin", "dash", "file"])
def test_the_continuation_goes_to_stdout(invoke, tiny, expected, tmp_path, how):
    file = tmp_path / "prompt"
    file.write_text("hello")
    args = {"argument": ["hello"], "stdin": [], "dash": ["-"], "file": ["-f", file]}[how]
    result = invoke("generate", "-m", tiny, *FREE, *args, stdin="hello" if how in ("stdin", "dash") else "")
    assert result.exit_code == 0
    assert result.stdout == expected.text + ("" if expected.text.endswith("\n") else "\n")
    assert result.stderr == ""


def test_json_holds_the_exact_result(invoke, tiny, expected):
    result = invoke("generate", "-m", tiny, *FREE, "--json", "--logprobs", "2", "hello")
    data = json.loads(result.stdout)
    assert data["outputs"][0] == json.loads(json.dumps(expected.to_dict()))["outputs"][0]
    assert data["prompt_token_ids"] == expected.prompt_token_ids
    assert data["settings"]["max_tokens"] == {"value": 12, "origin": "command line"}
    assert data["settings"]["temperature"] == {"value": 0.0, "origin": "default"}


def test_stop_strings_echo_and_stats(invoke, tiny, expected):
    stop = expected.text[2:5]
    result = invoke(
        "generate", "-m", tiny, *FREE, "--stop", "never", "--stop", stop, "--echo", "--stats", "hello"
    )
    assert result.stdout.rstrip("\n") == ("hello" + expected.text[: expected.text.index(stop)]).rstrip("\n")
    assert "prompt 5 tokens (0 reused)" in result.stderr or "prompt " in result.stderr
    assert "decode" in result.stderr


@pytest.mark.parametrize("more", [(), ("--beams", "2"), ("--chat",)])
def test_echo_is_refused_beside_json(invoke, tiny, more):
    """Whose object has the prompt; before the model is opened."""
    result = invoke("generate", "-m", tiny / "none", *FREE, "--json", "--echo", *more, "hello")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--echo does not go with --json" in result.stderr


def test_logprobs_are_a_line_a_token(invoke, tiny, expected):
    result = invoke("generate", "-m", tiny, *FREE, "--logprobs", "2", "hello")
    lines = result.stdout.splitlines()
    assert [int(line.split()[1]) for line in lines] == expected.token_ids
    assert [float(line.split()[2]) for line in lines] == pytest.approx(
        [entry.logprob for entry in expected.logprobs], abs=1e-4
    )


def test_several_samples(invoke, tiny):
    args = ("generate", "-m", tiny, *FREE, "--n", "3", "--temperature", "4", "--seed", "7", "hello")
    result = invoke(*args)
    assert [line for line in result.stdout.splitlines() if line.startswith("--- sample")] == [
        f"--- sample {i}: length" for i in range(3)
    ]
    data = json.loads(invoke(*args, "--json").stdout)
    assert len({tuple(output["token_ids"]) for output in data["outputs"]}) == 3


def test_show_settings(invoke, tiny):
    args = ("-m", tiny, "--top-k", "3", "--threads", "1", "--show-settings", "--max-tokens", "1")
    shown = invoke("generate", *args, "hello").stderr
    rows = {line.split()[0]: line for line in shown.splitlines()}
    for name, value, origin in (
        ("num_threads", "1", "command line"),
        ("top_k", "3", "command line (no effect: temperature is 0)"),
        ("temperature", "0.0", "default"),
        ("kv_format", "f32", "default"),
        ("context_length", "1024", "model file"),
        ("seed", "None", "default"),
    ):
        assert rows[name].split(maxsplit=2)[1] == value
        assert rows[name].split(maxsplit=2)[2].startswith(origin)


def test_model_defaults_are_applied_only_when_asked_for(invoke, tiny_chat):
    args = ("generate", "-m", tiny_chat, "--max-tokens", "1", "--show-settings", "hello")
    assert " 0.6 " not in invoke(*args).stderr
    rows = {
        line.split()[0]: line.split(maxsplit=2)
        for line in invoke(*args, "--model-defaults").stderr.splitlines()
    }
    assert rows["temperature"][1:] == ["0.6", "generation_config"]
    assert rows["top_k"][1:] == ["20", "generation_config"]
    rows = invoke(*args, "--model-defaults", "--temperature", "0").stderr.splitlines()
    assert next(row for row in rows if row.startswith("temperature")).split(maxsplit=2)[1:] == [
        "0.0",
        "command line",
    ]


def test_chat_applies_the_template(invoke, tiny_chat):
    data = json.loads(
        invoke("generate", "-m", tiny_chat, *FREE, "--chat", "--system", "S", "--json", "hello").stdout
    )
    with LLM(tiny_chat) as llm:
        text = llm.tokenizer.decode(data["prompt_token_ids"])
    assert text == "system:S\nuser:hello\nassistant:"


def test_a_chat_without_a_template_is_an_error(invoke, tiny):
    result = invoke("generate", "-m", tiny, "--chat", "hello")
    assert result.exit_code == 2
    assert "template" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--context", "8", "a long prompt that does not fit"], "more than the context of 8"),
        (["--context", "9999", "x"], "1024"),
        (["--max-tokens", "5000", "x"], "lower --max-tokens"),
        (["--banned-ids", "320", "x"], "320"),
        ([""], "empty"),
    ],
)
def test_errors_after_loading(invoke, tiny, args, words):
    result = invoke("generate", "-m", tiny, *args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_model_from_the_environment(invoke, tiny, expected):
    result = invoke("generate", *FREE, "hello", PELLUCID_MODEL=str(tiny))
    assert result.stdout.rstrip("\n") == expected.text.rstrip("\n")


def test_bytes_of_a_pipe_are_not_changed(tiny, expected):
    done = run("generate", "-m", str(tiny), *FREE, "hello")
    assert done.returncode == 0
    text = expected.text if expected.text.endswith("\n") else expected.text + "\n"
    assert done.stdout == text.encode()


def test_a_reader_that_goes_away_is_no_error(tiny):
    pipeline = '"$0" -m pellucid generate -m "$1" "${@:2}" x | head -c 1 >/dev/null'
    command = pipeline + '; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, str(tiny), *ENDLESS],
        capture_output=True,
        env=environment(),
        timeout=HANGS,
    )
    assert done.stderr == b""
    assert done.stdout.strip() == b"141"


def test_ctrl_c_ends_with_130(tiny):
    command = [sys.executable, "-m", "pellucid", "generate", "-m", str(tiny), *ENDLESS]
    with subprocess.Popen(
        [*command, "--backend", "reference", "x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), True)
        process.stdout.read(1)  # it has begun
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=HANGS)
        assert process.returncode == 130
        assert b"Traceback" not in stderr


def test_bench_measures_what_it_says(invoke, tiny):
    args = (
        "bench",
        "-m",
        tiny,
        "--prefill",
        "20,40",
        "--decode",
        "5",
        "--depth",
        "3",
        "--runs",
        "2",
        "--threads",
        "1,2",
    )
    data = json.loads(invoke(*args, "--json").stdout)
    rows = [(row["kind"], row["tokens"], row["depth"], row["threads"]) for row in data["results"]]
    assert rows == [
        (kind, tokens, depth, threads)
        for threads in (1, 2)
        for kind, tokens, depth in (("prefill", 20, 0), ("prefill", 40, 0), ("decode", 5, 3))
    ]
    for row in data["results"]:
        assert len(row["runs"]) == 2
        assert row["tokens_per_second"] == pytest.approx(sum(row["runs"]) / 2)
    assert data["peak_rss_bytes"] > 1 << 20
    lines = invoke(*args).stdout.splitlines()
    assert sum("tokens/s" in line for line in lines) == 6
    assert sum(line.startswith("ceilings, ") for line in lines) == 2


def test_bench_holds_speeds_against_ceilings(invoke, tiny):
    args = ("bench", "-m", tiny, "--prefill", "20", "--decode", "4", "--sequences", "1,3", "--runs", "1")
    data = json.loads(invoke(*args, "--threads", "1", "--json").stdout)
    (ceiling,) = data["ceilings"]
    with LLM(tiny) as llm:
        matrices = sum(outputs * inputs for outputs, inputs in llm._need().ops.matrix_shapes)
        size = llm._need().ops.runner.packed_bytes
    assert ceiling["bytes_per_token"] == size
    assert ceiling["multiply_adds_per_token"] + ceiling["multiply_adds_of_the_projection"] == matrices
    prefill, one, three = data["results"]
    assert (one["sequences"], three["sequences"]) == (1, 3)
    reached = one["tokens_per_second"] * size / ceiling["read_bytes_per_second"]
    assert one["of_ceiling"] == pytest.approx(reached)
    assert three["of_ceiling"] is None
    ratio = 3 * one["tokens_per_second"] / three["tokens_per_second"]
    assert three["pass_over_one_row"] == pytest.approx(ratio)
    peak = ceiling["int8_operations_per_second"]
    if peak is None:  # a float model
        assert prefill["of_ceiling"] is None
    else:
        done = ceiling["multiply_adds_per_token"] + ceiling["multiply_adds_of_the_projection"] / 20
        assert prefill["of_ceiling"] == pytest.approx(2 * done * prefill["tokens_per_second"] / peak)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--json-schema", '{"type": '], "Expecting value: line 1 column 10"),
        (["--json-schema", "{'type': 'object'}"], "its names in double quotes"),
        (["--json-schema", "no-such-file.json"], "JSON that begins with '{', or a file"),
        (["--grammar", "root = "], "a grammar (root ::= ... or start: ...)"),
        (["--grammar", 'root ::= "a" missing'], "missing"),
    ],
)
def test_a_broken_constraint_says_where(invoke, tiny, flags, said):
    result = invoke("generate", "ab", "-m", tiny, *flags)
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


def test_a_grammar_may_stand_on_the_command_line(invoke, tiny):
    result = invoke("generate", "ab", "-m", tiny, "--grammar", 'root ::= "xy" | "z"')
    assert result.exit_code == 0 and result.stdout.strip() in ("xy", "z")


def test_json_has_no_infinities(invoke, tiny):
    """RFC 8259: the log-probability of a token that top-k left out is null, in every command."""

    def no(name):
        raise AssertionError(f"{name} is no JSON")

    flags = ("-m", tiny, "--temperature", "1", "--top-k", "1", "--seed", "1", "--logprobs", "2", "ab")
    told = json.loads(invoke("generate", "--json", "--max-tokens", "2", *flags).stdout, parse_constant=no)
    with LLM(tiny) as llm:
        result = llm.generate("ab", max_tokens=2, temperature=1, top_k=1, seed=1, logprobs=2)
    for token, step in zip(told["outputs"][0]["logprobs"], result.logprobs, strict=True):
        assert [each["logprob"] for each in token["processed_top"]] == [
            None if each.logprob == float("-inf") else each.logprob for each in step.processed_top
        ]
    assert None in [each["logprob"] for each in told["outputs"][0]["logprobs"][0]["processed_top"]]
    best = invoke("search", "--strategy", "best-of", "--max-tokens", "2", "--json", *flags)
    assert best.exit_code == 0 and json.loads(best.stdout, parse_constant=no)
    line = invoke("batch", "-", *flags[:-1], stdin='{"prompt": "ab", "max_tokens": 2}').stdout
    assert json.loads(line, parse_constant=no)["outputs"][0]["logprobs"] == told["outputs"][0]["logprobs"]


def test_beams(invoke, tiny):
    with LLM(tiny) as llm:
        best = llm.beam_search("hello", max_tokens=6, num_beams=3, top_k=9)
    flags = ("--max-tokens", "6", "--beams", "3", "--top-k", "9", "hello")
    result = invoke("generate", "-m", tiny, *flags, "--stats")
    assert result.exit_code == 0 and result.stdout.rstrip("\n") == best.text.rstrip("\n")
    assert "rows computed" in result.stderr
    told = json.loads(invoke("generate", "-m", tiny, *flags, "--json").stdout)
    assert [each["token_ids"] for each in told["outputs"]] == [list(each.token_ids) for each in best.outputs]
    for more, said in ((["--n", "2"], "--n does not go"), (["--logprobs", "1"], "--logprobs does not go")):
        refused = invoke("generate", "-m", tiny, *flags, *more)
        assert refused.exit_code == 2 and said in refused.stderr
    assert "needs --max-tokens" in invoke("generate", "-m", tiny, "--beams", "2", "hello").stderr
