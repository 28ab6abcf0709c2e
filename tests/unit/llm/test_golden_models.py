"""Real models against llama.cpp's golden runs (../shared/data/golden): same choices but for near-ties.

llama.cpp rounds activations to 8 bits, as we do, in other places: over these runs its log-probabilities differ
from ours, and ours from those with float activations, by 0.1 on average. Hence the tolerances.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from real_models import real_model

from pellucid import LLM

SHARED = Path(os.environ.get("PELLUCID_SHARED", Path(__file__).parents[4] / "shared"))
NEAR_TIE = 0.5  # nats between the two best: below that the choice may differ
GOLDEN = {"smollm2": "smollm2-135m-q4_1.json", "gemma3": "gemma3-270m-q4_k_m.json"}


@pytest.fixture(scope="module", params=["smollm2", pytest.param("gemma3", marks=pytest.mark.slow)])
def golden(request):
    """(a loaded model, its golden runs, the whole file), or a skip that says why."""
    file = GOLDEN[request.param]
    runs = SHARED / "data" / "golden" / file
    if not runs.is_file():
        pytest.skip(f"{runs} is not here")
    data = json.loads(runs.read_text())
    with LLM(real_model(request.param)) as llm:
        yield llm, data["results"], data


def log_softmax(logits):
    logits = logits.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def test_prompts_have_the_same_ids(golden):
    llm, runs, _ = golden
    for run in runs:
        assert llm.tokenizer.encode(run["prompt"]) == run["prompt_ids"]


def test_along_their_text_our_choices_are_theirs_but_for_near_ties(golden):
    llm, runs, _ = golden
    for run in runs:
        ids = run["prompt_ids"] + run["ids"]
        ours = log_softmax(llm.logits(ids[:-1])[len(run["prompt_ids"]) - 1 :])
        errors = []
        for row, chosen, top in zip(ours, run["ids"], run["top5"], strict=True):
            if top[0][1] - top[1][1] > NEAR_TIE:
                assert int(row.argmax()) == chosen
            errors += [abs(row[token] - value) for token, value in top]
        assert np.mean(errors) < 0.25
        assert max(errors) < 1.25


def test_greedy_text_is_theirs_up_to_the_first_near_tie(golden):
    llm, runs, _ = golden
    results = llm.generate([run["prompt"] for run in runs], max_tokens=24)
    for run, result in zip(runs, results, strict=True):
        margins = [top[0][1] - top[1][1] for top in run["top5"]]
        sure = next((i for i, margin in enumerate(margins) if margin < NEAR_TIE), len(margins))
        assert result.token_ids[:sure] == run["ids"][:sure]
        if result.token_ids == run["ids"]:
            assert result.text == run["text"]
            assert result.finish_reason == run["finish"]


def test_the_chat_template_renders_as_theirs(golden):
    llm, _, data = golden
    if llm.tokenizer.chat_template is None:
        pytest.skip("a base model: no template in the file")
    ours = llm.render_chat([{"role": "user", "content": "Say hi."}])
    assert llm.tokenizer.decode(ours) == data["chat_template_render_user_Say_hi"]


def test_the_same_bits_alone_in_a_batch_in_chunks_and_from_the_cache(golden):
    llm, runs, _ = golden
    prompts = [run["prompt_ids"] for run in runs]
    alone = [llm.generate(prompt, max_tokens=8, logprobs=2).outputs for prompt in prompts]
    assert [result.outputs for result in llm.generate(prompts, max_tokens=8, logprobs=2)] == alone
    with LLM(llm.settings["model"].value, prefill_chunk=3, num_threads=1, prefix_caching=False) as other:
        assert [other.generate(prompt, max_tokens=8, logprobs=2).outputs for prompt in prompts] == alone
        assert np.array_equal(other.logits(prompts[0]), llm.logits(prompts[0]))
