"""The contract as somebody outside checks it, through the public API alone: one hash of the logits, whatever the
threads, the chunks, the company, the prefix cache; generation is the argmax of scoring, step by step.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM
from pellucid.capacity import KV_FORMATS

THREADS = (1, 2)
CHUNKS = (1, 7, 64, 256)
MODELS = ("llama", "mistral", "qwen2", "qwen2-yarn", "qwen3", "gemma3", "gpt2")
NUM_NEW = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("public")


def prompts(vocabulary, length=90):
    """A prompt, and others that share nothing, a token, half of it, and all of it with more behind."""
    rng = np.random.default_rng(21)
    one = rng.integers(2, vocabulary, length).tolist()
    fresh = rng.integers(2, vocabulary, length).tolist()
    return one, [fresh[:50], one[:1] + fresh, one[: length // 2] + fresh[:9], one + fresh[:30]]


def digest(logits):
    assert logits.dtype == np.float32
    return hashlib.sha256(np.ascontiguousarray(logits)).hexdigest()


def log_softmax(row):
    shifted = row.astype(np.float64) - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def told(result):
    """What a generation tells of its numbers, exactly."""
    return [
        (entry.token_id, entry.logprob, entry.processed_logprob, [(a.token_id, a.logprob) for a in entry.top])
        for entry in result.logprobs
    ]


def check_settings(path, vocabulary, settings, **options):
    """All settings give one hash, and the same generation with the same log-probabilities."""
    one, others = prompts(vocabulary)
    wanted = {"max_tokens": NUM_NEW, "logprobs": 5, "ignore_eos": True}
    with LLM(path, num_threads=1, prefill_chunk=256, prefix_caching=False, **options) as llm:
        logits = llm.logits(one)
        alone = llm.generate(one, **wanted)
        scored = llm.logits(one + alone.token_ids[:-1])[len(one) - 1 :]
    expected = digest(logits)
    assert scored.argmax(1).tolist() == alone.token_ids
    for row, entry in zip(scored, alone.logprobs, strict=True):
        assert entry.logprob == pytest.approx(log_softmax(row)[entry.token_id], abs=1e-6)
    reused = set()
    for threads, chunk in settings:
        with LLM(path, num_threads=threads, prefill_chunk=chunk, **options) as llm:
            assert digest(llm.logits(one)) == expected, (threads, chunk)
            company = llm.generate([others[0], one, *others[1:]], **wanted)
            assert told(company[1]) == told(alone), (threads, chunk, "company")
            for warm in others:  # what they left in the prefix cache changes nothing
                llm.generate(warm, max_tokens=1, temperature=1.0, seed=threads)
                again = llm.generate(one, **wanted)
                assert told(again) == told(alone), (threads, chunk, "warm")
                reused.add(again.counts.reused)
                assert digest(llm.logits(one)) == expected, (threads, chunk, "warm")
    assert max(reused) > 0, "no generation had a prefix hit"
    return expected


@pytest.mark.parametrize("quant", ["F32", "Q4_0"])
@pytest.mark.parametrize("name", MODELS)
def test_one_hash(folder, name, quant):
    """Each value of each axis, in every KV format; each has a hash of its own."""
    path = make(folder, name, "gguf", quant)
    settings = [(THREADS[i % 2], chunk) for i, chunk in enumerate(CHUNKS)] + [(2, 1)]
    hashes = {kv: check_settings(path, 320, settings, kv_format=kv) for kv in KV_FORMATS}
    assert len(set(hashes.values())) == len(KV_FORMATS)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_directory_like_a_file(folder, name):
    check_settings(make(folder, name, "safetensors"), 320, [(2, 7), (1, 64)])


@pytest.mark.slow
def test_one_hash_on_a_real_model():
    path = os.environ.get("PELLUCID_TEST_MODEL")
    if path is None or not Path(path).exists():
        pytest.skip("PELLUCID_TEST_MODEL does not name a model file")
    check_settings(path, 20000, list(itertools.product(THREADS, CHUNKS)))
