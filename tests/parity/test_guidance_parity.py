"""Classifier-free guidance against transformers' own, on a random float32 model."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    path = make(tmp_path_factory.mktemp("guidance"), "llama", "safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with LLM(path, num_threads=1) as llm:
        yield llm, model


@pytest.mark.parametrize("negative", [None, [9, 30, 4]])
@pytest.mark.parametrize("scale", [1.5, 4.0])
def test_the_same_tokens_and_log_probabilities(both, scale, negative):
    llm, model = both
    for seed in range(4):
        prompt = np.random.default_rng(seed).integers(2, 320, 7).tolist()
        ours = llm.generate(
            prompt, max_tokens=10, guidance_scale=scale, negative_prompt=negative, ignore_eos=True, logprobs=5
        )
        with torch.no_grad():
            theirs = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=10,
                min_new_tokens=10,
                do_sample=False,
                eos_token_id=319 + 1000,
                pad_token_id=2,
                guidance_scale=scale,
                negative_prompt_ids=None if negative is None else torch.tensor([negative]),
                return_dict_in_generate=True,
                output_scores=True,
            )
        assert ours.token_ids == theirs.sequences[0, len(prompt) :].tolist()
        for token, scores in zip(ours.logprobs, theirs.scores, strict=True):
            reference = torch.log_softmax(scores[0].double(), -1)
            for each in token.processed_top:
                assert each.logprob == pytest.approx(float(reference[each.token_id]), abs=1e-4 * abs(scale))
