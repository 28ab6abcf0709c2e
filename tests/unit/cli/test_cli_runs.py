"""`generate --record`, and what looks at the file: replay, diff, what-if, why."""

from __future__ import annotations

import json

import pytest
from tiny_checkpoints import make, write_gguf
from tiny_configs import variant
from tiny_weights import random_weights

from pellucid import LLM, read_run

ARGS = ("--max-tokens", "12", "--temperature", "1", "--ignore-eos")


@pytest.fixture
def recorded(invoke, tiny, tmp_path):
    def record(name, *more):
        path = tmp_path / name
        made = invoke("generate", "-m", tiny, "Once upon", *ARGS, *more, "--record", path)
        assert made.exit_code == 0, made.stderr
        return path

    return record


def test_a_run_is_recorded_and_replayed(invoke, tiny, recorded):
    path = recorded("a", "--seed", "3")
    run = read_run(path)
    assert run.complete and run.branches[0].settings["temperature"].origin == "command line"
    for more in ((), ("--generate", "--threads", "1", "--chunk", "2")):
        told = invoke("replay", path, *more)
        assert told.exit_code == 0 and told.stdout.startswith("equal: 12 tokens, 12 choices made again")
    assert json.loads(invoke("replay", path, "--json").stdout)["equal"] is True
    assert invoke("replay", path, "--kv-format", "bf16").stdout.count("differs from the run: KV format") == 1


def test_a_record_needs_a_file(invoke, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = invoke("generate", "-m", tiny, "Once upon", *ARGS, "--record", "-")
    assert told.exit_code == 2 and "--record: expected the name of a file, got -" in told.stderr
    assert not list(tmp_path.glob("-"))


def test_another_run_is_told_from_it(invoke, tiny, recorded, tmp_path):
    a, b, again = recorded("a", "--seed", "3"), recorded("b", "--seed", "4"), recorded("c", "--seed", "3")
    assert invoke("diff", a, again).stdout == "the same\n"
    told = invoke("diff", a, b, "-m", tiny)
    assert told.exit_code == 1 and "why: another seed" in told.stdout.splitlines()[0]
    assert "seed: 3 (command line) in a, 4 (command line) in b" in told.stdout
    assert json.loads(invoke("diff", a, b, "--json").stdout)["same"] is False
    cut = tmp_path / "cut"
    cut.write_bytes(a.read_bytes()[:-3])
    told = invoke("diff", a, cut)
    assert "no whole frame" in told.stderr and told.stdout == "the same\n"
    cut.write_bytes(b"x" + a.read_bytes())
    told = invoke("diff", a, cut)
    assert (told.exit_code, told.stderr.count("\n")) == (2, 1) and "is no run file" in told.stderr


def test_a_run_that_was_cut_off_is_told_as_one(invoke, tiny, recorded):
    path = recorded("a", "--seed", "3")
    path.write_bytes(path.read_bytes()[:-3])
    for words in (
        ("replay",), ("diff", path), ("what-if", "--seed", "9"), ("why", "--step", "0"), ("report", "--no-lens")
    ):  # fmt: skip
        told = invoke(words[0], path, *words[1:])
        assert told.exit_code == 0, told.stderr
        lines = [line for line in told.stderr.splitlines() if "no whole frame: the run was cut off" in line]
        assert len(lines) == (2 if words[0] == "diff" else 1) and lines[0].startswith(f"{path}: the last ")


def test_the_model_is_the_runs_own_unless_the_command_line_names_one(invoke, tiny, recorded, tmp_path):
    path = recorded("a", "--seed", "3")
    assert invoke("replay", path, PELLUCID_MODEL=str(tmp_path / "nothing")).stdout.startswith("equal")
    longer = make(tmp_path, "gpt2", "gguf")
    told = invoke("replay", path, "-m", longer, PELLUCID_MODEL=str(tiny))
    assert told.exit_code == 2 and told.stderr.startswith(f"pellucid: error: {path}: ")


def test_what_if_and_why(invoke, tiny, recorded):
    path = recorded("a", "--seed", "3")
    with LLM(tiny) as llm:
        turn = llm.what_if(path, seed=8).branches[0].turn
        why = str(llm.why(path, 4))
    told = json.loads(invoke("what-if", path, "--seed", "8", "--json").stdout)
    assert told["branches"][0]["turn"]["index"] == turn.index and told["changed"] == {"seed": [3, 8]}
    assert f"step {turn.index}," in invoke("what-if", path, "--seed", "8").stdout
    assert invoke("what-if", path, "--seed", "3").stdout == "the same text: 12 choices made again\n"
    nothing = invoke("what-if", path)
    assert nothing.exit_code == 2 and "nothing is set otherwise" in nothing.stderr
    assert invoke("why", path, "--step", "4").stdout.splitlines()[:3] == why.splitlines()[:3]
    assert len(invoke("why", path).stdout.splitlines()) == 12
    lines = [json.loads(line) for line in invoke("why", path, "--json").stdout.splitlines()]
    assert [each["token_id"] for each in lines] == read_run(path).branches[0].output_ids
    assert invoke("why", path, "--step", "12").exit_code == 2


def test_infinities_are_null_in_json(invoke, tiny, tmp_path):
    """RFC 8259 has none. In Python they are floats."""
    path = tmp_path / "run"
    one_left = ("--temperature", "1", "--allowed-ids", "50", "--max-tokens", "2", "--seed", "3")
    assert invoke("generate", "-m", tiny, "Once upon", *one_left, "--record", path).exit_code == 0

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    said = invoke("why", path, "--json").stdout.splitlines()
    what_if = invoke("what-if", path, "--allowed-ids", "51", "--json").stdout
    turn = json.loads(what_if, parse_constant=refuse)["branches"][0]["turn"]
    with LLM(tiny) as llm:
        assert len(said) == 2
        for step, told in enumerate(json.loads(line, parse_constant=refuse) for line in said):
            why = llm.why(path, step).to_dict()
            assert why["choice"]["margin"] == float("inf")
            assert why["choice"]["runner_up_logit"] == float("-inf")
            for choice in (told["choice"], turn["then"]["choice"], turn["now"]["choice"]):
                assert choice["margin"] is choice["runner_up_logit"] is choice["runner_up"] is None
            assert told["choice"]["logit"] == why["choice"]["logit"]
            assert not {'"inf"', '"-inf"'} & set(json.dumps(told).replace(",", " ").split())


def test_a_replay_that_is_not_equal_exits_with_1(invoke, recorded, monkeypatch):
    from pellucid.glass import runfile

    path = recorded("a", "--seed", "3")
    real = runfile.read_run

    def other(where):
        run = real(where)
        first = run.branches[0].tokens[0]
        run.branches[0].tokens[0] = type(first)(first.position, (first.token_id + 1) % 300)
        return run

    monkeypatch.setattr(runfile, "read_run", other)
    told = invoke("replay", path)
    assert told.exit_code == 1 and told.stdout.startswith("not equal") and "step 0" in told.stdout


def test_tokens_are_not_told_in_the_words_of_another_vocabulary(invoke, tiny, recorded, tmp_path):
    config = variant("llama")
    other = write_gguf(tmp_path / "other.gguf", config, random_weights(config, 0), spm=True)
    a, b = recorded("a", "--seed", "3"), recorded("b", "--seed", "4")
    told = invoke("diff", a, b, "-m", other)
    assert (told.exit_code, told.stdout, told.stderr.count("\n")) == (2, "", 1)
    assert f"{a}: is a run with another vocabulary" in told.stderr
