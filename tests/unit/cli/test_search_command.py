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
