"""`pellucid eval`: the harness's own command line, with our model in it."""

from __future__ import annotations

import json
import sys

import pytest
from cli_support import run

from pellucid import LLM


def test_without_the_harness_it_says_what_to_install(invoke, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.models", raising=False)
    done = invoke("eval", "-m", tiny, "--tasks", "hellaswag")
    assert done.exit_code == 2 and "pip install 'pellucid[eval]'" in done.stderr


def test_arguments_of_the_model_are_this_commands_options(invoke, tiny):
    pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: eval)")
    done = invoke("eval", "-m", tiny, "--tasks", "x", "--model_args", "threads=2")
    assert done.exit_code == 2 and "--model_args" in done.stderr


@pytest.mark.slow
def test_a_task_that_is_not_there_is_no_bug(tiny):
    pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: eval)")
    done = run("eval", "-m", str(tiny), "--tasks", "no_such_task")
    told = done.stderr.decode().splitlines()[-1]
    assert done.returncode == 2 and told.startswith("pellucid: error: lm-evaluation-harness: ")
    assert "no_such_task" in told and "bug" not in told


@pytest.mark.slow  # the harness reads all of its task files first
def test_a_task_from_a_file(tiny, tmp_path):
    pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: eval)")
    items = [
        {"query": f"Question {i}", "choices": [f"one {i}", "two or more"], "gold": i % 2} for i in range(12)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    task = {
        "task": "local", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "train",
        "dataset_kwargs": {"data_files": str(tmp_path / "items.jsonl"), "cache_dir": str(tmp_path / "cache")},
        "doc_to_text": "{{query}}", "doc_to_target": "gold", "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    (tmp_path / "task.yaml").write_text(json.dumps(task))  # JSON is YAML
    done = run(
        "eval", "-m", str(tiny), "--threads", "1", "--tasks", str(tmp_path / "task.yaml"),
        "--output_path", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    (path,) = (tmp_path / "out").rglob("results*.json")
    told = json.loads(path.read_text())
    right = right_norm = 0
    with LLM(tiny) as llm:
        for item in items:
            values = [s.logprob for s in llm.score(item["query"], [" " + c for c in item["choices"]])]
            lengths = [v / len(c) for v, c in zip(values, item["choices"], strict=True)]
            right += values.index(max(values)) == item["gold"]
            right_norm += lengths.index(max(lengths)) == item["gold"]
    assert told["results"]["local"]["acc,none"] == right / 12
    assert told["results"]["local"]["acc_norm,none"] == right_norm / 12
    assert told["config"]["model"] == "pellucid" and told["config"]["num_truncated"] == 0
