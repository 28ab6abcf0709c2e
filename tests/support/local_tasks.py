"""Tasks of lm-evaluation-harness over local files: HellaSwag and ARC-easy items as the test data holds them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EVAL = Path(os.environ.get("PELLUCID_SHARED", ROOT.parent / "shared")) / "data/eval"


def eval_file(name: str) -> Path:
    if not (EVAL / name).is_file():
        pytest.skip(f"no {name} at {EVAL} (set PELLUCID_SHARED)")
    return EVAL / name


def hellaswag(count: int) -> list[dict[str, Any]]:
    """Items as {query, choices, gold}."""
    lines = eval_file("hellaswag_400.txt").read_text(encoding="utf-8").splitlines()
    return [
        {"query": lines[i], "gold": int(lines[i + 1]), "choices": lines[i + 2 : i + 6]}
        for i in range(0, 6 * count, 6)
    ]


def arc_easy(count: int) -> list[dict[str, Any]]:
    lines = eval_file("arc_easy_300.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines[:count]]
    return [{**item, "query": item["query"] + "\nAnswer:"} for item in items]


def write_jsonl(path: Path, items: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def choice_task(folder: Path, name: str, items: list[dict[str, Any]], *metrics: str) -> dict[str, Any]:
    """A multiple-choice task, as `simple_evaluate(tasks=[...])` takes it."""
    return _task(folder, name, items, "multiple_choice", metrics) | {
        "doc_to_text": "{{query}}",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
    }


def text_task(
    folder: Path, name: str, texts: Iterable[str], output_type: str, *metrics: str
) -> dict[str, Any]:
    """A task of texts: loglikelihood_rolling, or generate_until up to a full stop."""
    task = _task(folder, name, [{"text": text} for text in texts], output_type, metrics)
    task |= {
        "doc_to_text": "{{text}}" if output_type == "generate_until" else "",
        "doc_to_target": "{{text}}",
    }
    if output_type == "generate_until":
        task["generation_kwargs"] = {"until": ["e", "\n\n"], "max_gen_toks": 12, "do_sample": False}
    return task


def _task(
    folder: Path, name: str, items: list[dict[str, Any]], output_type: str, metrics: Iterable[str]
) -> dict[str, Any]:
    higher = {"word_perplexity": False, "byte_perplexity": False, "bits_per_byte": False}
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": str(write_jsonl(folder / f"{name}.jsonl", items)),
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "train",
        "output_type": output_type,
        "metric_list": [
            {"metric": metric, "higher_is_better": higher.get(metric, True)} for metric in metrics
        ],
    }
