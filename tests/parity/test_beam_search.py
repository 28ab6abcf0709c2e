"""Beam search against transformers' own, on a random float32 model: the same outputs, order and scores."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")

ENDS = [1, *range(40, 320, 9)]  # many end tokens, so that outputs of all lengths finish


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    path = make(tmp_path_factory.mktemp("beam"), "llama", "safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with LLM(path, num_threads=1) as llm:
        yield llm, model


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.5, -1.0])
@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_same_as_transformers(both, num_beams, length_penalty, early_stopping):
    if num_beams == 1 and early_stopping is not False:
        pytest.skip("transformers does greedy decoding here, and has no stopping rule")
    llm, model = both
    ended = 0
    for seed in range(1):
        prompt = np.random.default_rng(seed).integers(2, 320, 6).tolist()
        ours = llm.beam_search(
            prompt,
            max_tokens=9,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            stop_token_ids=ENDS,
        )
        with torch.no_grad():
            theirs = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=9,
                num_beams=num_beams,
                num_return_sequences=num_beams,
                do_sample=False,
                eos_token_id=ENDS,
                pad_token_id=2,
                return_dict_in_generate=True,
                output_scores=True,
                **(
                    {"length_penalty": length_penalty, "early_stopping": early_stopping}
                    if num_beams > 1
                    else {}
                ),
            )
        assert len(ours.outputs) == num_beams
        for output, row in zip(ours.outputs, theirs.sequences.tolist(), strict=True):
            length = len(output.token_ids)
            assert list(output.token_ids) == row[len(prompt) : len(prompt) + length]
            assert set(row[len(prompt) + length :]) <= {2}
            ended += output.finish_reason == "eos"
        if num_beams > 1:
            values = [output.value for output in ours.outputs]
            assert np.allclose(values, theirs.sequences_scores.numpy(), rtol=1e-4, atol=1e-5)
    assert ended or num_beams == 1
