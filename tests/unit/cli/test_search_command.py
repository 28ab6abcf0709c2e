"""`pellucid search`: what goes to stdout, to stderr and into JSON."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tiny_checkpoints import make

from pellucid.cli.search import command


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(make(tmp_path_factory.mktemp("search"), "llama", "gguf", "F32"))


def run(path, *words):
    result = CliRunner().invoke(command, ["ab", "-m", path, "--max-tokens", "2", *words])
    assert result.exception is None, result.output
    return result


def test_outputs_and_what_is_known_of_them(path):
    result = run(path, "--best", "3", "--top-k", "4", "--verify")
    assert len(result.stdout.splitlines()) == 3
    assert "certified" in result.stderr and "certificate checked" in result.stderr
    assert "\x1b" not in result.output


def test_json_and_a_budget(path):
    told = json.loads(run(path, "--json", "--max-nodes", "1", "--num-beams", "0").stdout)
    assert told["ended_by"] == "max_nodes" and not told["certified"]
    assert told["gap"] >= 0 and told["upper_bound"] <= 0 and told["nodes"] == 1
    assert told["outputs"][0]["logprob"] <= 0


STRATEGIES = {
    "beam": ["--num-beams", "3", "--length-penalty", "0"],
    "best-first": ["--num-beams", "3"],
    "diverse": ["--num-beams", "4", "--diversity", "2"],
    "stochastic": ["--best", "3", "--seed", "5"],
    "contrastive": ["--alpha", "0.3", "--candidates", "3"],
    "best-of": ["--best", "4", "--temperature", "1", "--seed", "5", "--by", "sum"],
    "self-consistency": ["--best", "4", "--temperature", "1", "--seed", "5", "--extract", ".", "--weighted"],
    "minimum-bayes-risk": ["--best", "4", "--temperature", "1", "--seed", "5", "--utility", "token_f1"],
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_says_what_python_says(path, name):
    from pellucid import LLM
    from pellucid.cli._strategies import STRATEGIES as KNOWN

    assert set(KNOWN) == set(STRATEGIES)
    words = ["--strategy", name, *STRATEGIES[name]]
    shown = run(path, *words)
    assert 1 <= len(shown.stdout.splitlines()) <= 4 and shown.stderr
    told = json.loads(run(path, *words, "--json").stdout)
    prompt, common = "ab", {"max_tokens": 2}
    drawn = {"n": 4, "temperature": 1, "seed": 5, **common}
    with LLM(path) as llm:
        result = {
            "beam": lambda: llm.beam_search(prompt, num_beams=3, length_penalty=0, **common),
            "best-first": lambda: llm.beam_search(
                prompt, num_beams=3, early_stopping="never", best_first=True, **common
            ),
            "diverse": lambda: llm.beam_search(prompt, num_beams=4, num_groups=2, diversity=2, **common),
            "stochastic": lambda: llm.stochastic_beam_search(prompt, n=3, seed=5, **common),
            "contrastive": lambda: llm.contrastive_search(prompt, alpha=0.3, k=3, **common),
            "best-of": lambda: llm.best_of(prompt, by="sum", **drawn),
            "self-consistency": lambda: llm.self_consistency(prompt, extract=".", weighted=True, **drawn),
            "minimum-bayes-risk": lambda: llm.minimum_bayes_risk(prompt, utility="token_f1", **drawn),
        }[name]()
    assert same(told, json.loads(json.dumps(result.to_dict())))
    values = {
        "stochastic": lambda: [each.logprob for each in result.outputs],
        "contrastive": lambda: [sum(max(step.scores) for step in result.steps) / len(result.steps)],
        "best-of": lambda: [each.score for each in result.ranked],
        "minimum-bayes-risk": lambda: [each.score for each in result.ranked],
        "self-consistency": lambda: [party.weight for party in result.parties],
    }.get(name, lambda: [each.value for each in result.outputs])()
    assert [line.split()[0] for line in shown.stdout.splitlines()] == [f"{value:.4f}" for value in values]


def same(a, b):
    """Equal but for times and origins of settings."""
    if isinstance(a, dict):
        skipped = {"seconds", "timings", "settings", "work"}
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k not in skipped)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "beam", "--diversity", "1"], "--diversity has no meaning with --strategy beam"),
        (["--strategy", "contrastive", "--verify"], "--verify has no meaning"),
        (["--alpha", "0.5"], "--alpha has no meaning with --strategy exact"),
        (["--logprobs", "2"], "--logprobs has no meaning with --strategy exact"),
        (["--strategy", "beam", "--logprobs", "2"], "--logprobs has no meaning with --strategy beam"),
        (["--strategy", "self-consistency", "--temperature", "1"], "needs --extract"),
        (["--strategy", "best-of"], "temperature"),
    ],
)
def test_options_of_other_strategies_are_refused(path, words, said):
    result = CliRunner().invoke(command, ["ab", "-m", path, "--max-tokens", "2", *words])
    assert result.exit_code != 0 and said in result.output + str(result.exception)
