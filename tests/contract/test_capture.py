"""Looking changes nothing: with and without a capture the same logits and tokens in every mode, and the same
activations whatever the batch, the chunks, the threads, replays, cache hits, forks and preemptions."""

from __future__ import annotations

import numpy as np
import pytest
from backends import backend, replaying
from recorder import Recorder
from tiny_checkpoints import make

from pellucid import LLM, Capture
from pellucid.engine.engine import Engine, Request
from pellucid.glass.store import CaptureWatch
from pellucid.models.base import models
from pellucid.ops.base import SITES
from pellucid.sampling.params import SamplingParams
from pellucid.weights.checkpoint import open_checkpoint

ALL = Capture(sites=SITES)
BLOCK, LENGTH, NUM_NEW = 16, 45, 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def captured_run(checkpoint, prompt, *, capture, threads, chunk, company, num_blocks=128):
    """-> (digest of all logits, tokens, Captured or None); on two threads small passes are replayed."""
    ops = type(backend("cpu"))(num_threads=threads)
    model = models[checkpoint.architecture].load(checkpoint, ops)
    recorder = Recorder(model if threads == 1 else replaying(model, ops))
    engine = Engine(recorder, ops, num_blocks=num_blocks, block_size=BLOCK, prefill_chunk=chunk)
    recorder.watch(engine)
    rng = np.random.default_rng(company)
    for i in range(company):  # every other one captures something else
        ids = rng.integers(0, 320, 20 + 5 * i).tolist()
        other = CaptureWatch(Capture(sites=("q", "final"), layers=(1,)), model, len(ids)) if i % 2 else None
        engine.add(Request(i, ids, SamplingParams(max_tokens=NUM_NEW), watch=other))
    watch = None if capture is None else CaptureWatch(capture, model, len(prompt))
    engine.add(Request("it", prompt, SamplingParams(max_tokens=NUM_NEW), watch=watch))
    tokens = []
    while engine.has_work:
        for event in engine.step():
            assert event.finish_reason in (None, "length"), event
            if event.request_id == "it":
                tokens.append(event.token_id)
    assert not recorder.conflicts
    whole = [*prompt, *tokens]
    return recorder.digest(whole[:-1]), tokens, None if watch is None else watch.captured(whole)


@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
@pytest.mark.parametrize("name", list(models))
def test_capture_changes_nothing_and_is_changed_by_nothing(folder, name, quant):
    checkpoint = open_checkpoint(make(folder, name, "gguf", quant))
    prompt = np.random.default_rng(5).integers(0, 320, LENGTH).tolist()
    plain = captured_run(checkpoint, prompt, capture=None, threads=1, chunk=64, company=0)
    first = None
    for threads, chunk, company, num_blocks in (
        (1, 64, 0, 128),
        (2, 7, 0, 128),
        (2, 16, 3, 128),
        (1, 7, 4, 12),
    ):
        found = captured_run(
            checkpoint,
            prompt,
            capture=ALL,
            threads=threads,
            chunk=chunk,
            company=company,
            num_blocks=num_blocks,
        )
        assert found[:2] == plain[:2], (threads, chunk, company)
        captured = found[2]
        assert captured.positions.tolist() == list(range(LENGTH + NUM_NEW - 1)) and not captured.missing
        if first is None:
            first = captured
        for site in SITES:
            assert np.array_equal(captured[site], first[site]), (site, threads, chunk, company)


@pytest.fixture(scope="module", params=list(models))
def tiny(request, folder):
    with LLM(make(folder, request.param, "gguf", "F32"), num_threads=2, prefill_chunk=16) as llm:
        yield llm, folder, request.param


def test_guesses_that_were_wrong_leave_nothing(tiny):
    """With speculation the same tokens and, of every position, what is computed of the token that stayed."""
    llm, _, _ = tiny
    prompt = [5, 9, 100, 33, 17, 250, 8] * 5
    params = {"max_tokens": 40, "ignore_eos": True, "temperature": 0.7, "seed": 2}
    plain = llm.generate(prompt, **params, capture=ALL)
    for speculation in ("auto", "jacobi"):
        found = llm.generate(prompt, **params, speculation=speculation, max_drafts=5, capture=ALL)
        assert found.token_ids == plain.token_ids
        assert found.captured.positions.tolist() == list(range(74)) == plain.captured.positions.tolist()
        for site in SITES:
            assert np.array_equal(found.captured[site], plain.captured[site]), (speculation, site)
        # Where it ends amid the guesses of a pass, those after the end leave nothing either.
        ends = {"stop_token_ids": [plain.token_ids[20]], "speculation": speculation, "max_drafts": 5}
        ended = llm.generate(prompt, **params, **ends, capture=ALL)
        assert ended.token_ids == plain.token_ids[: plain.token_ids.index(plain.token_ids[20]) + 1]
        assert ended.captured.positions.tolist() == list(range(34 + len(ended.token_ids)))


def test_the_page_adds_up(tiny):
    """The residual stream is what the sites say: each block adds its two parts to it, bit for bit."""
    llm, _, _ = tiny
    captured = llm.trace(list(range(40)), ALL)
    resid = captured["resid_pre"]
    assert np.array_equal(captured["resid_mid"], resid + captured["attn_out"])
    assert np.array_equal(captured["resid_post"], captured["resid_mid"] + captured["mlp_out"])
    assert np.array_equal(captured["resid_post"][:, :-1], resid[:, 1:])


def test_the_last_layer_through_norm_and_head_is_the_logits(tiny):
    llm, _, _ = tiny
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    captured = llm.trace(ids, Capture(sites=("resid_post", "final")))
    final = llm.model.final_norm(captured.at("resid_post", -1).copy())
    assert np.array_equal(final, captured.at("final", 0))
    assert np.array_equal(llm.model.ops.linear(final, llm.model.head), llm.logits(ids))


def test_values_are_those_of_the_numpy_twin(tiny):
    """Within the rounding of float32 sums in another order."""
    llm, folder, name = tiny
    ids = np.random.default_rng(1).integers(0, 320, 30).tolist()
    ours = llm.trace(ids, ALL)
    with LLM(make(folder, name, "gguf", "F32"), backend="reference") as twin:
        theirs = twin.trace(ids, ALL)
    for site in SITES:
        assert ours[site].shape == theirs[site].shape
        assert np.abs(ours[site] - theirs[site]).max() <= 2e-5 * np.abs(theirs[site]).max(), site
