"""Choices from bounds, through the engine: the tokens are those of the whole logits, and logits stay to be had."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from real_models import real_model
from tiny_checkpoints import make

from pellucid.engine.engine import Engine, Request
from pellucid.models.base import models
from pellucid.ops.cpu import CpuOps
from pellucid.ops.screening import MOST_ROWS, Screening
from pellucid.sampling.params import SamplingParams
from pellucid.text.tokenizer import load_tokenizer
from pellucid.weights.checkpoint import open_checkpoint

PARAMETERS = [
    {},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 0.7, "seed": 2},
    {"temperature": 1.3, "min_p": 0.05, "seed": 3},
]
ALL_LOGITS = {
    "temperature": 1.0,
    "top_p": 0.9,
    "seed": 4,
}  # bounds are not enough; its passes have the same shapes


class Whole:
    """A model that is never asked for bounds."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, batch, cache):
        object.__setattr__(batch, "choice_only", False)
        return self.model(batch, cache)


class Counting(Whole):
    """Counts the passes that gave bounds of so many rows."""

    def __init__(self, model):
        self.model, self.num_bounds = model, Counter()

    def __call__(self, batch, cache):
        logits = self.model(batch, cache)
        self.num_bounds[0 if isinstance(logits, np.ndarray) else len(logits)] += 1
        return logits


def tokens(model, ops, requests, max_sequences):
    """One request after the other, or all together -> {request id: tokens}"""
    engine = Engine(model, ops, num_blocks=256, block_size=16, max_sequences=max_sequences)
    found = {request.request_id: [] for request in requests}
    for request in requests:
        engine.add(request)
    while engine.has_work:
        for event in engine.step():
            found[event.request_id].append(event.token_id)
    return found


def check(path, prompts, num_new, max_sequences=1, parameters=(*PARAMETERS, ALL_LOGITS)):
    """Every prompt with every set of parameters, from bounds and from logits, on one thread and on two."""
    checkpoint = open_checkpoint(path)
    results, counted = [], []
    for threads, kind in ((1, Whole), (2, Counting)):
        ops = CpuOps(threads)
        model = models[checkpoint.architecture].load(checkpoint, ops)
        ops.finish_loading()
        model = kind(ops.replaying(model))
        requests = [
            Request((i, j), ids, SamplingParams(max_tokens=num_new, ignore_eos=True, **values))
            for i, ids in enumerate(prompts)
            for j, values in enumerate(parameters)
        ]
        results.append(tokens(model, ops, requests, max_sequences))
        counted.append(getattr(model, "num_bounds", None))
    assert results[0] == results[1]
    return counted[1]


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2", "qwen3"])
def test_tiny_models(tmp_path, name, monkeypatch):
    halves = []  # whether a pass of few rows reads half of the head; with so few tokens it would not pay
    monkeypatch.setattr(
        Screening, "pays", lambda self, num_rows: halves.append(0 < num_rows <= MOST_ROWS) or halves[-1]
    )
    path = make(tmp_path, name, "gguf", "Q8_0")
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 300, n).tolist() for n in (1, 7, 40)]
    one_by_one = check(path, prompts, 12)
    assert one_by_one[1] > len(prompts) * len(PARAMETERS) * 6 and True in halves
    assert set(one_by_one) == {0, 1}
    together = check(path, prompts, 12, max_sequences=MOST_ROWS)
    assert together[MOST_ROWS] > 6 and set(together) <= {0, *range(1, MOST_ROWS + 1)}
    halves.clear()
    crowd = check(path, prompts * 2, 12, max_sequences=16, parameters=PARAMETERS)
    assert crowd[16] > 6  # replayed
    crowd = check(path, prompts * 2, 12, max_sequences=24, parameters=PARAMETERS)
    assert crowd[24] > 6  # more rows than are replayed
    monkeypatch.setattr(Screening, "pays", lambda self, num_rows: False)
    assert check(path, prompts, 12) == one_by_one  # from peaks


@pytest.mark.parametrize("strategy", ["speculative", "jacobi"])
def test_drafts_are_checked_from_bounds(tmp_path, monkeypatch, strategy):
    """Guesses, right and wrong: the plain tokens, from bounds of several rows of one sequence."""
    monkeypatch.setattr(Screening, "pays", lambda self, num_rows: 0 < num_rows <= MOST_ROWS)
    checkpoint = open_checkpoint(make(tmp_path, "llama", "gguf", "Q8_0"))
    ops = CpuOps(2)
    model = models[checkpoint.architecture].load(checkpoint, ops)
    ops.finish_loading()
    whole, counting = Whole(ops.replaying(model)), Counting(ops.replaying(model))
    prompts = [[5, 9, 5, 9, 5, 9, 5], [200, 3, 7] * 5, [11]]
    guessing = {"speculation": "jacobi" if strategy == "jacobi" else "always", "max_drafts": MOST_ROWS - 1}

    def found(model, name, **values):
        params = SamplingParams(max_tokens=24, ignore_eos=True, **values)
        requests = [Request(i, ids, params, strategy=name) for i, ids in enumerate(prompts)]
        return tokens(model, ops, requests, 1)

    for values in PARAMETERS:
        assert found(counting, strategy, **values, **guessing) == found(whole, "sample", **values)
    assert any(counting.num_bounds[rows] for rows in range(2, MOST_ROWS + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_real_models(name):
    """200 prompts, greedy and drawn."""
    root = Path(os.environ.get("PELLUCID_SHARED", Path(__file__).parents[2].parent / "shared"))
    text = root / "data" / "text" / "wikitext2_test_head.txt"
    if not text.is_file():
        pytest.skip(f"{text} is not there: it gives the prompts")
    path = real_model(name)
    tokenizer = load_tokenizer(path)
    lines = [line for line in text.read_text().splitlines() if len(line) > 80]
    prompts = [list(tokenizer.encode(lines[i % len(lines)][: 20 + i % 60])) for i in range(200)]
    assert check(path, prompts, 8)[1] > 0
    assert check(path, prompts, 8, max_sequences=MOST_ROWS)[MOST_ROWS] > 0
    assert check(path, prompts, 8, max_sequences=16, parameters=PARAMETERS)[16] > 0
