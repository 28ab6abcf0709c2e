"""What was captured knows its model, in memory and in files, and no other one reads it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM, Capture, Captured, UsageError
from pellucid.fingerprint import fingerprint, of_model
from pellucid.glass.shards import CaptureFileError

IDS = list(range(20, 50))
READ = Capture(sites=("resid_pre", "resid_post", "q", "k"))
VIEWS = {
    "lens": lambda llm, captured: llm.lens(captured).logprobs,
    "attention": lambda llm, captured: llm.attention(captured, 1),
    "rollout": lambda llm, captured: llm.rollout(captured),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Two models of equal shapes and of other weights: rounded."""
    folder = tmp_path_factory.mktemp("models")
    return [make(folder, "llama", "gguf", quant) for quant in ("F32", "Q8_0")]


@pytest.fixture(scope="module")
def models(paths):
    with LLM(paths[0], num_threads=1) as one, LLM(paths[1], num_threads=1) as other:
        yield one, other


def saved(captured, folder):
    captured.save(folder)
    return Captured.load(folder)


@pytest.mark.parametrize("view", VIEWS)
def test_of_another_model_of_equal_shapes(models, view, tmp_path):
    one, other = models
    assert one.model.width == other.model.width and len(one.model.layers) == len(other.model.layers)
    captured = one.trace(IDS, READ)
    here, there = (of_model(llm)["weights"][:16] for llm in (other, one))
    assert here != there
    who = "lens" if view == "lens" else "attention"
    message = (
        f"{who}: expected what was captured of this model (llama, weights {here}), "
        f"got that of another (llama, weights {there}); open that one, or give the text instead"
    )
    for each in (captured, saved(captured, tmp_path / "it")):
        with pytest.raises(UsageError, match=re.escape(message)):
            VIEWS[view](other, each)
        assert np.array_equal(VIEWS[view](one, each), VIEWS[view](one, captured))


def test_the_same_weights_opened_otherwise(models, paths):
    """Threads, chunks, formats of the cache and backends make no other model."""
    one, _ = models
    captured = one.trace(IDS, READ)
    options = {"num_threads": 2, "prefill_chunk": 5, "kv_format": "f16", "backend": "reference"}
    with LLM(paths[0], **options) as again:
        assert np.array_equal(again.lens(captured).ranks[:, 0], one.lens(captured).ranks[:, 0])
        assert again.attention(captured, 0).shape == one.attention(captured, 0).shape
        assert one.lens(again.trace(IDS, READ)).layers == one.lens(captured).layers


def test_every_way_to_capture_tells_the_model(models, tmp_path):
    one, other = models
    arguments = {"max_tokens": 3, "ignore_eos": True, "n": 2, "temperature": 1.0, "seed": 1}
    result = one.generate(IDS, **arguments, capture=READ)
    with one.begin(IDS, capture=READ) as generation:
        generation.step()
        with generation.fork() as fork:
            fork.step()
            captured = [generation.captured, fork.captured]
    files = one.generate(
        IDS, max_tokens=2, capture=Capture(sites=("resid_pre", "resid_post"), to=tmp_path / "it")
    )
    for each in (
        *(sample.captured for sample in result.outputs),
        *captured,
        files.captured,
        Captured.load(tmp_path / "it"),
    ):
        assert each.model_print == of_model(one)
        with pytest.raises(UsageError, match="got that of another"):
            other.lens(each)
    assert of_model(one).items() <= fingerprint(one).items()


def test_a_file_that_does_not_tell_its_model_is_damaged(models, tmp_path):
    models[0].trace(IDS).save(tmp_path / "it")
    index = tmp_path / "it" / "capture.json"
    data = json.loads(index.read_text())
    assert data["version"] == 2 and data["model"] == of_model(models[0])
    for wrong in ({}, "llama", {"architecture": "llama"}, 3):
        index.write_text(json.dumps(data | {"model": wrong}))
        with pytest.raises(CaptureFileError, match="is damaged"):
            Captured.load(tmp_path / "it")
    del data["model"]
    index.write_text(json.dumps(data))
    with pytest.raises(CaptureFileError, match="is damaged: it has no 'model'"):
        Captured.load(tmp_path / "it")
    index.write_text(json.dumps(data | {"version": 1}))
    with pytest.raises(
        CaptureFileError, match="expected a pellucid-capture of version 2, found .* of version 1;"
    ):
        Captured.load(tmp_path / "it")
