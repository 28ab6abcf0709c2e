"""Log-probabilities of continuations against transformers' float32 logits on random weights."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt2"])
def test_each_token_within_1e_4(tmp_path, name):
    path = make(tmp_path, name, "safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    rng = np.random.default_rng(8)
    context = rng.integers(2, 300, 37).tolist()
    stem = rng.integers(2, 300, 5).tolist()
    some = [stem, [*stem[:3], 7, 9], stem[:1], rng.integers(2, 300, 12).tolist()]
    with LLM(path) as llm:
        scores = llm.score(context, some)
    for score, ids in zip(scores, some, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*context, *ids]])).logits[0, len(context) - 1 : -1].double()
        rows = torch.log_softmax(logits, -1)
        wanted = rows[range(len(ids)), ids].numpy()
        assert np.abs(np.array(score.logprobs) - wanted).max() < 1e-4
        assert score.greedy == bool((rows.argmax(-1).numpy() == ids).all())
