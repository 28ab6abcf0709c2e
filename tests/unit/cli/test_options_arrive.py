"""Every option of a command arrives where it acts: what the library is called with, word for word."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pellucid import LLM, UsageError, read_run


@pytest.fixture
def called(monkeypatch):
    """called("search"): the arguments of the next call of LLM.search, which then ends the command."""

    def watch(name):
        seen = SimpleNamespace(args=None, named=None)

        def method(self, *args, **named):
            seen.args, seen.named = args, named
            raise UsageError("seen")

        monkeypatch.setattr(LLM, name, method)
        return seen

    return watch


def test_search(invoke, tiny, called):
    seen = called("search")
    invoke(
        "search", "ab", "-m", tiny, "--max-tokens", 5, "--best", 3, "--objective", "per_token", "--min-tokens", 2,
        "--must-end", "--max-nodes", 77, "--max-seconds", 2.5, "--max-memory", "3M", "--num-beams", 2, "--batch", 6,
        "--top-k", 9,
    )  # fmt: skip
    assert seen.args == ("ab",)
    assert {name: value for name, value in seen.named.items() if name != "on_progress"} == {
        "max_tokens": 5, "n": 3, "objective": "per_token", "min_tokens": 2, "must_end": True, "max_nodes": 77,
        "max_seconds": 2.5, "max_memory": 3 << 20, "num_beams": 2, "batch_size": 6, "top_k": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "said", "stopping"),
    [
        ("beam", "yes", True),
        ("beam", "no", False),
        ("beam", "never", "never"),
        ("best-first", None, "never"),
        ("beam", None, None),
    ],
)
def test_early_stopping(invoke, tiny, called, strategy, said, stopping):
    seen = called("beam_search")
    more = [] if said is None else ["--early-stopping", said]
    invoke("search", "ab", "-m", tiny, "--max-tokens", 5, "--strategy", strategy, *more)
    assert seen.named.get("early_stopping") == stopping


@pytest.mark.parametrize("name", ["score", "rank"])
def test_score_and_rank(invoke, tiny, called, name):
    seen = called("score")
    invoke(
        name, "-m", tiny, "ab", "c", "d", "--delimiter", " ", "--boundary", "harness", "--unconditional", "x",
        "--truncate",
    )  # fmt: skip
    assert seen.args == ("ab", [" c", " d"])
    assert seen.named == {"boundary": "harness", "unconditional": "x", "truncate": True}


def test_ab(invoke, tiny, called, tmp_path):
    (tmp_path / "i.json").write_text('[{"kind": "zero_ablate", "layer": 1, "part": "mlp"}]')
    seen = called("ab")
    invoke("ab", "x", "-m", tiny, "-i", tmp_path / "i.json", "--top", 7, "--parse-special", "--seed", 3)
    assert seen.args[0] == "x" and len(seen.args[1]) == 1
    assert seen.named == {"top": 7, "parse_special": True, "max_tokens": 16, "seed": 3}


@pytest.mark.parametrize("chat", [False, True])
def test_step_begins(called, chat):
    """Without a terminal: what the command begins with."""
    from pellucid.cli.step import _begin

    seen = called("begin")
    options = {
        "chat": chat,
        "system": "S" if chat else None,
        "model_defaults": True,
        "parse_special": not chat,
    }
    with pytest.raises(UsageError, match="seen"):
        _begin(object.__new__(LLM), "x", options | {"load": None}, {"seed": 3})
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "x"}]
    assert seen.args == (messages if chat else "x",)
    assert seen.named == {"model_defaults": True, "parse_special": not chat, "seed": 3}


def test_step_loads_and_sets(tiny, tmp_path):
    from pellucid.cli.step import _begin

    with LLM(tiny) as llm:
        llm.begin("once", seed=1, temperature=1).save(tmp_path / "a")
        assert _begin(llm, None, {"load": tmp_path / "a"}, {"temperature": 0.5}).params.temperature == 0.5
        assert _begin(llm, None, {"load": tmp_path / "a"}, {}).params.temperature == 1


def test_explain(invoke, tiny):
    told = json.loads(
        invoke("explain", "a b c d", "-m", tiny, "--rows", 2, "--top", 1, "--max-tokens", 1, "--json").stdout
    )
    (turn,) = told["passes"]
    assert [len(row["top"]) for row in turn["rows"]] == [1, 1] and turn["computed"] > 2


def test_explain_fails_where_its_check_does(invoke, tiny, monkeypatch):
    from pellucid.glass import explain

    numbers = iter(range(10**6))
    real = explain._digest
    monkeypatch.setattr(explain, "_digest", lambda row: str(next(numbers)) if row.size > 300 else real(row))
    done = invoke("explain", "a", "-m", tiny)
    assert done.exit_code == 1 and "DIFFERENT" in done.stdout and "the check failed" in done.stderr


def test_records_of_layers_and_of_samples(invoke, tiny, tmp_path):
    path = tmp_path / "run"
    flags = ("--max-tokens", 4, "--temperature", 1, "--seed", 2, "--ignore-eos", "--n", 2)
    done = invoke("generate", "ab", "-m", tiny, *flags, "--record", path, "--record-layers")
    assert done.exit_code == 0, done.stderr
    run = read_run(path)
    assert all(token.layers for branch in run.branches for token in branch.tokens)
    assert run.branches[0].output_ids != run.branches[1].output_ids
    lines = invoke("why", path, "--branch", 1, "--json").stdout.splitlines()
    assert [json.loads(line)["token_id"] for line in lines] == run.branches[1].output_ids
    one = json.loads(invoke("why", path, "--branch", 1, "--step", 2, "--json").stdout)
    assert one["token_id"] == run.branches[1].output_ids[2]
    seen = invoke("generate", "ab", "-m", tiny, "--record-layers")
    assert seen.exit_code == 2 and "add --record" in seen.stderr
