"""Speculation in the engine, on a model whose logits tell of every wrong token in the cache: whoever drafts, the
output is that of one token at a time."""

from __future__ import annotations

import random
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
from toy_engine import VOCABULARY, ToyModel, ToyOps, drain, reference

from pellucid.decoding.base import strategies
from pellucid.decoding.drafts.base import Draft
from pellucid.decoding.drafts.corpus import Corpus, CorpusDrafter
from pellucid.decoding.drafts.costs import PassCosts
from pellucid.decoding.speculative import Drafting, Speculative
from pellucid.engine.engine import Engine, Request
from pellucid.sampling.params import SamplingParams

EOS = {3}
CONTEXT = 96


def engine_of(**options):
    return Engine(
        ToyModel(CONTEXT), ToyOps(), **{"num_blocks": 64, "block_size": 4, "prefill_chunk": 16, **options}
    )


def random_params(rng, **more):
    return SamplingParams(
        max_tokens=rng.choice([1, 2, 9, 40]),
        temperature=rng.choice([0.0, 0.4, 1.5]),
        top_k=rng.choice([0, 5]),
        top_p=rng.choice([1.0, 0.8]),
        repetition_penalty=rng.choice([1.0, 1.3]),
        presence_penalty=rng.choice([0.0, 0.5]),
        no_repeat_ngram_size=rng.choice([0, 2]),
        mirostat=rng.choice([0, 0, 2]),
        min_tokens=rng.choice([0, 1]),
        ignore_eos=rng.random() < 0.5,
        stop_token_ids=rng.choice([(), (5,)]),
        n=rng.choice([1, 1, 3]),
        seed=rng.randrange(2**40),
        **more,
    )


class Scripted:
    """What a drafter may do wrong, and right."""

    costly = False
    known: ClassVar[dict] = {}

    def __init__(self, kind, rng):
        self.name, self._rng = kind, rng
        self.costly = kind == "slow oracle"

    def draft(self, history, most):
        rng = self._rng
        tokens = self.known.get((history.sample_index, *history.token_ids[: history.num_prompt].tolist()), [])
        right = tokens[history.num_generated :]
        if self.name == "random":
            return Draft([rng.randrange(VOCABULARY) for _ in range(rng.randrange(most + 1))])
        if self.name in ("oracle", "slow oracle"):
            return Draft(right[:most], 9)
        if self.name == "nearly":
            return Draft([t if rng.random() < 0.8 else (t + 1) % VOCABULARY for t in right[:most]], 3)
        if self.name == "crash":
            if rng.random() < 0.3:
                raise ZeroDivisionError("no draft today")
            return Draft(right[:most])
        if self.name == "out of vocabulary":
            return Draft([*right[:2], rng.choice([-1, VOCABULARY, 2**40])])
        if self.name == "no ints":
            return Draft([*right[:1], "x"])
        return Draft(right[:5] * 40)  # too long


KINDS = ["random", "oracle", "slow oracle", "nearly", "crash", "out of vocabulary", "no ints", "too long"]
FAILING = {
    "crash": "ZeroDivisionError: no draft today",
    "out of vocabulary": "vocabulary",
    "no ints": "ValueError",
}


def speculative(rng, kind, params, seed):
    drafting = Drafting(PassCosts(), VOCABULARY, lambda params, seed: [Scripted(kind, rng)] if kind else [])
    return Speculative(params, seed, drafting)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["auto", "always"])
@pytest.mark.parametrize("chunk, num_blocks", [(1, 64), (16, 26), (64, 64)])
def test_whoever_drafts_the_output_is_the_plain_one(kind, mode, chunk, num_blocks):
    rng = random.Random(f"{kind} {mode} {chunk}")
    engine = engine_of(prefill_chunk=chunk, num_blocks=num_blocks, max_sequences=4)
    requests = [
        Request(
            i,
            [rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 30))],
            random_params(rng, speculation=mode, max_drafts=rng.choice([1, 4, 15])),
            EOS,
            make=partial(speculative, rng, kind),
        )
        for i in range(12)
    ]
    expected = {(r.request_id, i): reference(r, CONTEXT, i) for r in requests for i in range(r.params.n)}
    for r in requests:
        for i in range(r.params.n):
            Scripted.known[(i, *r.prompt_ids.tolist())] = expected[r.request_id, i][0]
        engine.add(r)
    outputs, events = drain(engine)
    assert outputs == expected
    check_events(events)
    failures = [failure for e in events if e.drafts is not None for failure in e.drafts.failures]
    if kind in FAILING and mode == "auto":
        assert failures and all(name == kind and FAILING[kind] in why for name, why in failures)
    elif kind not in FAILING:
        assert not failures


def check_events(events):
    """What a pass tells of its drafts is what its tokens say: after an event with `drafts`, so many accepted ones."""
    runs = {}
    for e in events:
        runs.setdefault((e.request_id, e.sample_index), []).append(e)
    for run in runs.values():
        for i, e in enumerate(run):
            if e.drafts is None:
                continue
            assert 0 <= e.drafts.accepted <= e.drafts.drafted
            flags = [other.from_draft for other in run[i : i + e.drafts.accepted]]
            assert all(flags) and len(flags) == e.drafts.accepted
        told = sum(e.drafts.accepted for e in run if e.drafts is not None)
        assert told == sum(e.from_draft for e in run)


@pytest.mark.parametrize("block", [1, 2, 7, 31])
def test_jacobi_comes_to_the_plain_output(block):
    rng = random.Random(block)
    engine = engine_of(prefill_chunk=64)
    requests = [
        Request(
            i,
            [rng.randrange(VOCABULARY) for _ in range(9)],
            random_params(rng, max_drafts=block),
            EOS,
            "jacobi",
        )
        for i in range(12)
    ]
    for r in requests:
        engine.add(r)
    outputs, events = drain(engine)
    assert outputs == {
        (r.request_id, i): reference(r, CONTEXT, i) for r in requests for i in range(r.params.n)
    }
    check_events(events)


def test_jacobi_iterates_to_the_fixed_point_of_its_block():
    """Against the iteration written down: y' = choice(x, y) for all of a block, until nothing changes."""
    from toy_engine import logits_of

    prompt, block = [4, 4, 8], 6
    x, y, revisions = list(prompt), [8] * block, []
    for _ in range(block + 1):
        new = [int(np.argmax(logits_of(x + y[:i]))) for i in range(block)]
        revisions.append(sum(a != b for a, b in zip(y, new, strict=True)))
        if new == y:
            break
        y = new
    engine = engine_of()
    engine.add(Request("j", prompt, SamplingParams(max_tokens=block, max_drafts=block - 1), (), "jacobi"))
    outputs, _ = drain(engine)
    assert outputs["j", 0][0] == y and revisions[-1] == 0


def test_drafts_of_the_text_itself_save_passes():
    """The toy's texts never repeat, so the repetition is forced on it: a bias that only one cycle satisfies."""
    prompt = [1, 2, 3, 4] * 6

    def cycle(token_ids, logits):
        logits[:] = 0
        logits[token_ids[-1] % 4 + 1] = 9
        return logits

    params = SamplingParams(max_tokens=40, logits_processors=[cycle], speculation="always", max_drafts=7)
    engine = engine_of()
    engine.add(Request("s", prompt, params, (), "speculative"))
    outputs, events = drain(engine)
    assert outputs["s", 0][0] == [i % 4 + 1 for i in range(40)]
    assert engine.model.num_passes <= 2 + 40 // 8 + 1
    assert sum(e.from_draft for e in events) >= 33
    assert all(e.drafts.source == "context" for e in events if e.drafts is not None)


def test_earlier_outputs_are_drafts():
    corpus = Corpus(1000)
    params = SamplingParams(max_tokens=30, speculation="always", max_drafts=9)
    plain = Request("c", [7, 8], params, (), "sample")
    expected = reference(plain, CONTEXT)
    corpus.add([7, 8, *expected[0]])
    drafting = Drafting(PassCosts(), VOCABULARY, lambda params, seed: [CorpusDrafter(corpus)])
    engine = engine_of()
    engine.add(Request("c", [7, 8], params, make=lambda params, seed: Speculative(params, seed, drafting)))
    outputs, events = drain(engine)
    assert outputs["c", 0] == expected
    assert sum(e.from_draft for e in events if e.drafts is None or e.drafts.source == "corpus") > 15


def test_slides_and_drafts():
    """A context that slides changes positions and noise: what is drafted across it is checked like the rest."""
    for seed in range(6):
        rng = random.Random(seed)
        params = SamplingParams(
            max_tokens=150, overflow="slide", slide_keep=3, temperature=rng.choice([0.0, 1.0]), seed=seed,
            exponential_decay_start=20, exponential_decay_factor=1.01, speculation="always", max_drafts=6,
        )  # fmt: skip
        request = Request(seed, [5, 6, 7, 8], params, EOS, make=partial(speculative, rng, "random"))
        engine = engine_of()
        engine.add(request)
        assert drain(engine)[0] == {(seed, 0): reference(request, CONTEXT)}


def test_the_keys_and_values_are_those_of_the_plain_run():
    """After every pass the cache holds, position by position, the tokens that were accepted: nothing of a refused
    draft is seen by anybody (the toy's values are the tokens themselves)."""
    rng = random.Random(5)
    params = SamplingParams(max_tokens=60, temperature=1.0, seed=2, speculation="always", max_drafts=7)
    engine = engine_of()
    engine.add(Request("k", [1, 2, 3], params, (), make=partial(speculative, rng, "random")))
    (sequence,) = engine.scheduler.waiting
    while engine.has_work:
        engine.step()
        table, n = sequence.block_table, sequence.num_computed
        values = engine.cache.tokens[table].reshape(-1)[:n] if table else np.empty(0)
        assert values.tolist() == sequence.token_ids[: len(values)].tolist()


def test_strategies_of_the_registry():
    for name in ("speculative", "jacobi", "constrained"):
        assert strategies[name](SamplingParams(), 0).proposes
