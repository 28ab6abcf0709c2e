"""Choices from bounds, through the engine: the tokens are those of the whole logits, and logits stay to be had."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from real_models import real_model
from tiny_checkpoints import make

from pellucid.engine.engine import Engine, Request
from pellucid.models.base import models
from pellucid.ops.cpu import CpuOps
from pellucid.ops.screening import Screening
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
    """Counts the passes that gave bounds."""

    num_bounds = 0

    def __call__(self, batch, cache):
        logits = self.model(batch, cache)
        self.num_bounds += not isinstance(logits, np.ndarray)
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


def check(path, prompts, num_new, max_sequences=1):
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
            for j, values in enumerate([*PARAMETERS, ALL_LOGITS])
        ]
        results.append(tokens(model, ops, requests, max_sequences))
        counted.append(getattr(model, "num_bounds", None))
    assert results[0] == results[1]
    return counted[1]


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2", "qwen3"])
def test_tiny_models(tmp_path, name, monkeypatch):
    monkeypatch.setattr(Screening, "pays", lambda self: True)  # with so few rows it does not
    path = make(tmp_path, name, "gguf", "Q8_0")
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 300, n).tolist() for n in (1, 7, 40)]
    num_bounds = check(path, prompts, 12)
    assert (
        num_bounds > len(prompts) * len(PARAMETERS) * 6
    )  # shapes that come for the first time have their logits
    assert check(path, prompts, 12, max_sequences=4) < num_bounds  # several in one pass have their logits
    monkeypatch.setattr(Screening, "pays", lambda self: False)
    assert check(path, prompts, 12) == 0


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
    assert check(path, prompts, 8) > 0
