"""Every architecture x backend: a position's logits have the same bits however the tokens were fed."""

from __future__ import annotations

import numpy as np
import pytest
from backends import NAMES, backend
from passes import Runner, all_logits
from tiny_checkpoints import make

from pellucid.models.base import models
from pellucid.weights.checkpoint import open_checkpoint

LENGTH = 70  # longer than every tiny window, several blocks
# (variant, container, format of the weights): floats, blocks of 32, and super-blocks of 256
SUBJECTS = [
    *(
        (name, *kind)
        for name in models
        for kind in [("safetensors", "F32"), ("gguf", "Q4_1"), ("gguf", "Q8_0")]
    ),
    ("mistral", "safetensors", "F32"),
    *(("llama-256", "gguf", quant) for quant in ["F16", "Q5_0", "Q4_K", "Q6_K"]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def loaded(folder):
    """(architecture, container, quant, backend) -> (model, ops), made once."""
    cache = {}

    def get(architecture, container, quant, name):
        key = (architecture, container, quant, name)
        if key not in cache:
            ops = backend(name)
            checkpoint = open_checkpoint(make(folder, architecture, container, quant))
            cache[key] = models[checkpoint.architecture].load(checkpoint, ops), ops
        return cache[key]

    return get


def cases():
    """Native code runs them all; the reference, which is slow, one a format family."""
    for name in NAMES:
        for subject in SUBJECTS:
            if name != "reference" or subject[2] == "F32" or subject == ("llama", "gguf", "Q4_1"):
                yield pytest.param((*subject, name), id="-".join((*subject, name)))


@pytest.fixture(params=list(cases()))
def subject(request, loaded):
    return loaded(*request.param)


def prompt(model, seed=0, length=LENGTH):
    return np.random.default_rng(seed).integers(0, model.vocabulary_size, length).tolist()


def same_bits(a, b):
    assert a.dtype == b.dtype == np.float32
    np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


def test_a_model_says_its_shape(subject):
    model, ops = subject
    logits = all_logits(model, ops, prompt(model))
    assert logits.shape == (LENGTH, model.vocabulary_size)
    assert np.isfinite(logits).all()
    assert logits.std() > 0.5  # not collapsed: the comparisons below compare something
    assert len(model.layers) >= 3
    assert model.context_length >= LENGTH


@pytest.mark.parametrize("chunks", [[1], [7], [64, 1], [3, 30, 1, 17]], ids=str)
def test_chunks_do_not_matter(subject, chunks):
    model, ops = subject
    ids = prompt(model)
    same_bits(all_logits(model, ops, ids), all_logits(model, ops, ids, chunks))


def test_runs_of_attention_do_not_matter(subject):
    """Past position 256, where attention begins a second run."""
    model, ops = subject
    ids = prompt(model, length=300)
    same_bits(all_logits(model, ops, ids), all_logits(model, ops, ids, [100, 155, 2, 11]))


@pytest.mark.parametrize("block", [32, 64])
def test_block_size_and_block_order_do_not_matter(subject, block):
    model, ops = subject
    ids = prompt(model)
    whole = all_logits(model, ops, ids)
    same_bits(whole, all_logits(model, ops, ids, [23], block=block, seed=block))


def test_company_does_not_matter(subject):
    """Three sequences of different lengths in one batch, each at its own pace."""
    model, ops = subject
    texts = {
        name: prompt(model, seed, length)
        for seed, (name, length) in enumerate([("a", 5), ("b", 70), ("c", 33)])
    }
    runner, done = Runner(model, ops, seed=1), dict.fromkeys(texts, 0)
    gathered = {name: [] for name in texts}
    pace = np.random.default_rng(5)
    while any(done[name] < len(ids) for name, ids in texts.items()):
        pieces = []
        for name, ids in texts.items():
            count = int(pace.integers(1, 20))
            if done[name] < len(ids):
                pieces.append((name, ids[done[name] : done[name] + count]))
                done[name] += len(pieces[-1][1])
        logits, start = runner.step(pieces), 0
        for name, ids in pieces:
            gathered[name].append(logits[start : start + len(ids)])
            start += len(ids)
    for name, ids in texts.items():
        same_bits(all_logits(model, ops, ids), np.concatenate(gathered[name]))


def test_only_the_rows_asked_for(subject):
    model, ops = subject
    ids = prompt(model)
    rows = [0, 3, LENGTH - 1]
    same_bits(all_logits(model, ops, ids)[rows], Runner(model, ops).step([("only", ids)], rows))
    runner = Runner(model, ops)
    assert runner.step([("only", ids[:23])], []).shape == (0, model.vocabulary_size)
    same_bits(
        all_logits(model, ops, ids)[23:], runner.step([("only", ids[23:])])
    )  # K and V are whole all the same


def test_a_shared_prefix_is_as_good_as_a_computed_one(subject):
    """Two sequences whose first blocks are the same blocks, as after a prefix-cache hit; then a copied
    block."""
    model, ops = subject
    ids = prompt(model)
    whole = all_logits(model, ops, ids)
    runner = Runner(model, ops)
    runner.step([("first", ids[:40])])
    runner.tables["second"] = runner.tables["first"][:2]  # 32 positions of the 40
    runner.lengths["second"] = 32
    same_bits(whole[32:], runner.step([("second", ids[32:])]))
    source, copy = runner.tables["first"][2], runner.free.pop()
    runner.cache.copy_blocks([(source, copy)])
    runner.tables["third"] = [*runner.tables["first"][:2], copy]
    runner.lengths["third"] = 40
    same_bits(whole[40:], runner.step([("third", ids[40:])]))


def test_the_past_matters(subject):
    """The other tests could pass on a model that forgets; this one could not."""
    model, ops = subject
    ids = prompt(model)
    other = [(ids[0] + 1) % model.vocabulary_size, *ids[1:]]
    a, b = all_logits(model, ops, ids), all_logits(model, ops, other)
    assert np.abs(a - b).max(axis=1)[:5].min() > 1e-3
