"""Contrastive search against the paper's definition on transformers' own forward passes (transformers 5 has no
contrastive search of its own any more), on a random float32 model."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")


def stated(model, prompt, count, alpha, k):
    """Su et al. 2022, equation 5: the hidden states are those of the last layer, after its norm."""
    ids, steps = list(prompt), []
    for _ in range(count):
        with torch.no_grad():
            p = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)
            top, candidates = torch.topk(p, k)
            batch = torch.tensor([[*ids, token] for token in candidates.tolist()])
            hidden = model(batch, output_hidden_states=True).hidden_states[-1].double()
        hidden = hidden / hidden.norm(dim=-1, keepdim=True)
        penalty = (hidden[:, :-1] @ hidden[:, -1:].transpose(1, 2)).squeeze(-1).max(-1).values
        scores = (1 - alpha) * top - alpha * penalty
        steps.append((candidates.tolist(), scores.tolist()))
        ids.append(int(candidates[scores.argmax()]))
    return ids[len(prompt) :], steps


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_tokens_and_scores(tmp_path, architecture):
    path = make(tmp_path, architecture, "safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with LLM(path, num_threads=1) as llm:
        for seed in range(2):
            prompt = np.random.default_rng(seed).integers(2, 300, 6).tolist()
            ours = llm.contrastive_search(prompt, max_tokens=8, alpha=0.6, k=4, ignore_eos=True)
            tokens, steps = stated(model, prompt, 8, 0.6, 4)
            assert list(ours.token_ids) == tokens
            for step, (candidates, scores) in zip(ours.steps, steps, strict=True):
                assert list(step.candidates) == candidates
                assert np.allclose(step.scores, scores, rtol=0, atol=1e-4)
