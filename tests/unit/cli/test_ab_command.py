"""`pellucid ab`: the table and the JSON are what `LLM.ab` says."""

from __future__ import annotations

import json
from math import exp

import pytest

from pellucid import LLM
from pellucid.glass.intervention_file import load_interventions
from pellucid.glass.words import cells


@pytest.fixture
def ablate(tmp_path):
    file = tmp_path / "ablate.json"
    file.write_text('[{"kind": "zero_ablate", "layer": 1, "part": "mlp"}]')
    return file


@pytest.fixture
def compared(tiny, ablate):
    with LLM(tiny) as llm:
        return llm.ab("日本 a", load_interventions(ablate), top=3, max_tokens=5, ignore_eos=True)


@pytest.fixture
def ab(invoke, tiny, ablate):
    def run(*more, **env):
        return invoke(
            "ab", "日本 a", "-m", tiny, "-i", ablate, "--max-tokens", 5, "--ignore-eos", *more, **env
        )

    return run


def test_json(ab, compared):
    told = json.loads(ab("--json").stdout)
    assert told["steps"] == json.loads(json.dumps(compared.to_dict()["steps"]))
    assert told["parts_at"] == compared.parts_at and len(told["steps"]) == 5
    assert told["with"]["outputs"] == json.loads(json.dumps(compared.with_.to_dict()["outputs"]))


def test_a_line_for_each_token(ab, compared):
    lines = ab().stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("token"))
    for line, step in zip(lines[at + 1 :], compared.steps, strict=True):
        numbers = (
            f"{exp(step.logprob_without):.3f}",
            f"{exp(step.logprob_with):.3f}",
            f"{step.divergence:.3f}",
        )
        assert line.split()[1:4] == [each.rjust(len(each)) for each in numbers]


def test_a_narrow_terminal_has_a_line_for_each_distribution(ab, compared):
    lines = ab(COLUMNS="60").stdout.splitlines()
    assert sum(line.startswith("  without  ") for line in lines) == len(compared.steps)
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("token")) :]
    assert max(map(cells, table)) <= 60


def test_parts_of_a_character_are_bytes(ab, tiny):
    with LLM(tiny) as llm:
        part = llm.tokenizer.encode("日", add_bos=False)[0]
    done = ab("--allowed-ids", part)
    assert done.stdout.count("\n\\xe6") == 5 and "æ" not in done.stdout
    told = json.loads(ab("--allowed-ids", part, "--json").stdout)
    assert {step["text"] for step in told["steps"]} == {"\\xe6"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x"], "interventions"),
        (["x", "-i", "FILE", "--top", "0"], "--top"),
        (["-i", "FILE", ""], "empty"),
        (["x", "-i", "no-such-file"], "no-such-file"),
        (["x", "-i", "FILE", "--n", "2"], "ab compares one sample with one, got n=2"),
    ],
)
def test_errors(invoke, tiny, ablate, words, said):
    done = invoke("ab", "-m", tiny, *(ablate if word == "FILE" else word for word in words))
    assert done.exit_code == 2 and not done.stdout and said in done.stderr and done.stderr.count("\n") == 1
