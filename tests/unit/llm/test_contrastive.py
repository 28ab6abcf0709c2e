"""Contrastive search against its definition, computed from whole rows of `llm.logits` and `llm.trace`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pellucid import LLM, Capture, UsageError

PROMPT = [5, 7, 3, 100]


@pytest.fixture(scope="module")
def model(tiny_path):
    with LLM(tiny_path, num_threads=1) as loaded:
        yield loaded


def stated(model, prompt, count, alpha, k, temperature=1.0, stops=()):
    """Token by token, every candidate by itself, from the first token on."""
    ids, found = list(prompt), []
    while len(found) < count:
        logits = model.logits(ids)[-1].astype(np.float64) / temperature
        p = np.exp(logits - logits.max())
        p /= p.sum()
        scores = {}
        for token in np.argsort(-p, kind="stable")[:k].tolist():
            hidden = model.trace([*ids, token], capture=Capture(sites=("final",)))["final"][:, 0].astype(
                np.float64
            )
            hidden /= np.linalg.norm(hidden, axis=1, keepdims=True)
            scores[token] = (1 - alpha) * p[token] - alpha * (hidden[:-1] @ hidden[-1]).max()
        token = max(scores, key=scores.get)
        found.append((token, scores))
        ids.append(token)
        if token in stops:
            break
    return found


@pytest.mark.parametrize(("alpha", "k"), [(0.6, 4), (0.2, 3), (1.0, 5), (0.0, 4), (0.6, 1)])
def test_by_its_definition(model, alpha, k):
    expected = stated(model, PROMPT, 8, alpha, k)
    result = model.contrastive_search(PROMPT, max_tokens=8, alpha=alpha, k=k, ignore_eos=True)
    assert list(result.token_ids) == [token for token, _ in expected]
    for step, (_, scores) in zip(result.steps, expected, strict=True):
        assert list(step.candidates) == list(scores)
        assert np.allclose(step.scores, list(scores.values()), rtol=0, atol=1e-6)
    assert result.finish_reason == "length" and result.text == model.tokenizer.decode(list(result.token_ids))
    json.dumps(result.to_dict(), allow_nan=False)
    if alpha == 0 or k == 1:
        greedy = model.generate(PROMPT, max_tokens=8, ignore_eos=True)
        assert list(result.token_ids) == greedy.token_ids


def test_stages_and_end_tokens(model):
    stops = list(range(0, 320, 7))
    expected = stated(model, PROMPT, 30, 0.6, 4, temperature=0.5, stops=stops)
    result = model.contrastive_search(
        PROMPT, max_tokens=30, temperature=0.5, stop_token_ids=stops, ignore_eos=True
    )
    assert list(result.token_ids) == [token for token, _ in expected]
    assert result.finish_reason == "eos" and result.token_ids[-1] in stops
    assert len(repr(result)) < 300 and repr(result.text) in repr(result)
    late = model.contrastive_search(PROMPT, max_tokens=12, stop_token_ids=stops, min_tokens=9)
    assert not set(late.token_ids[:9]) & set(stops)


def test_a_constraint_and_guidance(model):
    for alpha in (0.0, 0.9):
        chosen = model.contrastive_search("x", max_tokens=9, choices=["abc", "ab", "b"], alpha=alpha)
        assert chosen.text in ("abc", "ab", "b") and chosen.finish_reason == "eos"
    guided = {"guidance_scale": 2.0, "negative_prompt": [9, 30], "ignore_eos": True, "max_tokens": 8}
    assert (
        list(model.contrastive_search(PROMPT, alpha=0.0, **guided).token_ids)
        == model.generate(PROMPT, **guided).token_ids
    )


def test_several_prompts_share_passes_and_nothing_else(model, tiny_path):
    prompts = [PROMPT, [9], [100, 8, 8, 8, 8, 3]]
    alone = [model.contrastive_search(each, max_tokens=10, ignore_eos=True) for each in prompts]
    together = model.contrastive_search(prompts, max_tokens=10, ignore_eos=True)
    assert [each.steps for each in together] == [each.steps for each in alone]
    assert together[0].work.passes == 11, "one for the prompts, one for the candidates of each step"
    assert together[0].work.rows == len(PROMPT) + 4 * 10, "each token is computed once"
    with LLM(
        tiny_path, num_threads=2, max_sequences=2, prefill_chunk=2, context_length=32, kv_memory=1 << 20
    ) as small:
        again = small.contrastive_search(prompts, max_tokens=10, ignore_eos=True)
        assert [each.steps for each in again] == [each.steps for each in alone]
        assert not small._driver._engine.scheduler.parked and small._driver._engine.pool.num_used == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"k": 0}, "k: expected"),
        ({"stop": "x"}, "stop string"),
    ],
)
def test_what_is_refused(model, more, said):
    with pytest.raises(UsageError, match=said):
        model.contrastive_search(PROMPT, max_tokens=4, **more)
