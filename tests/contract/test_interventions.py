"""Interventions change their own sequence and nothing else, and the same in every mode; those that change nothing
leave every bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import (
    LLM,
    Capture,
    ForceToken,
    MeanAblate,
    Patch,
    SamplingParams,
    Scale,
    Steer,
    UsageError,
    ZeroAblate,
)
from pellucid.models.base import models
from pellucid.ops.base import SITES

PROMPT = np.random.default_rng(9).integers(2, 320, 37).tolist()
NEW = {"max_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def opened(folder, name, quant, **options):
    return LLM(make(folder, name, "gguf", quant), **{"num_threads": 2, "prefill_chunk": 16} | options)


@pytest.fixture(scope="module", params=[(name, quant) for name in models for quant in ("F32", "Q8_0")],
                ids=lambda pair: "-".join(pair))  # fmt: skip
def llm(request, folder):
    with opened(folder, *request.param) as loaded:
        loaded.made_of = request.param
        yield loaded


def vector(llm, seed=0, size=1.0):
    return np.random.default_rng(seed).normal(size=llm.model.width).astype(np.float32) * size


def digest(rows):
    return hashlib.sha256(np.ascontiguousarray(rows)).hexdigest()


def strong(llm):
    """Something of every kind that changes the output."""
    return [
        Steer(vector(llm), 0, scale=2.0),
        Patch(np.stack([vector(llm, 5), vector(llm, 6)]), 1, "attn_out", start=3),
        ZeroAblate(0, "heads", heads=(1,)),
        ZeroAblate(1, "mlp", positions=(5, 20)),
        MeanAblate(vector(llm, 1), 1, "attention", steps=(0, None)),
        Scale(0.5, -1, "v", heads=(0,)),
        Steer(vector(llm, 2), -1, "mlp_out", steps=(1, 4)),
    ]


def test_patching_a_run_with_itself_is_the_identity(llm):
    """At every site, of every layer, at all positions."""
    captured = llm.trace(PROMPT, Capture(sites=SITES))
    plain = digest(llm.logits(PROMPT))
    for site in SITES:
        for layer in captured.layers(site):
            patch = Patch.of(captured, layer, site)
            assert digest(llm.logits(PROMPT, interventions=[patch])) == plain, (site, layer)
    every = [Patch.of(captured, layer, "resid_post", (4, 20)) for layer in captured.layers("resid_post")]
    assert digest(llm.logits(PROMPT, interventions=every)) == plain


def test_steering_by_zero_and_scaling_by_one_are_the_identity(llm):
    plain = digest(llm.logits(PROMPT))
    nothing = [Steer(np.zeros(llm.model.width), 1), Steer(vector(llm), 0, scale=0.0), Scale(1.0, 1)]
    assert digest(llm.logits(PROMPT, interventions=nothing)) == plain


def test_each_does_what_it_says(llm):
    """Captured after it, at its own site; the row goes on with that, bit for bit."""
    plain = llm.trace(PROMPT, Capture(sites=SITES))
    head_dim, v = llm.model.layers[1].head_dim, vector(llm)

    def at(intervention, site, layer=1):
        return llm.trace(PROMPT, Capture(sites=(site,)), interventions=[intervention]).at(site, layer)

    assert np.array_equal(
        at(Steer(v, 1, scale=3.0), "resid_post"), plain.at("resid_post", 1) + np.float32(3) * v
    )
    part = at(Steer(v, 1, "attn_in", positions=(5, 9)), "attn_in") - plain.at("attn_in", 1)
    assert (part[:5] == 0).all() and (part[9:] == 0).all() and (part[5:9] != 0).any(axis=1).all()
    z = at(ZeroAblate(1, "heads", heads=(0, 2)), "z").reshape(len(PROMPT), -1, head_dim)
    assert (z[:, [0, 2]] == 0).all()
    kept = [h for h in range(z.shape[1]) if h not in (0, 2)]
    assert np.array_equal(z[:, kept], plain.at("z", 1).reshape(z.shape)[:, kept])
    assert (at(ZeroAblate(1), "attn_out") == 0).all() and (at(ZeroAblate(1), "mlp_out") == 0).all()
    assert np.array_equal(at(MeanAblate(v, 1, "mlp"), "mlp_out"), np.broadcast_to(v, (len(PROMPT), len(v))))
    assert np.array_equal(at(Scale(0.5, 1, "q"), "q"), plain.at("q", 1) * np.float32(0.5))
    ablated = llm.trace(PROMPT, Capture(sites=("resid_pre", "resid_post")), interventions=[ZeroAblate(1)])
    assert np.array_equal(ablated.at("resid_post", 1), ablated.at("resid_pre", 1))
    steps = at(Steer(v, 1, steps=(0, 1)), "resid_post") != plain.at("resid_post", 1)
    assert steps.any(axis=1).tolist() == [False] * (len(PROMPT) - 1) + [True]


def test_one_of_eight_changes_one_row_only(llm):
    """Eight requests of the same prompt share passes and prefixes; one of them is changed."""
    changes = strong(llm)
    plain = llm.generate(PROMPT, **NEW, temperature=1.0, seed=3, logprobs=4)
    alone = llm.generate(PROMPT, **NEW, temperature=1.0, seed=3, logprobs=4, interventions=changes)
    assert alone.logprobs[0] != plain.logprobs[0]
    from pellucid.serving.many import generate_all

    with opened(make_folder(llm), *llm.made_of) as fresh:
        from pellucid.front.looking import looking_of

        (look,) = looking_of(None, changes, 1)
        params = {**NEW, "temperature": 1.0, "seed": 3, "logprobs": 4}
        requests = [
            fresh._prepare(PROMPT, None, False, False, params, looking=look if i == 3 else None)
            for i in range(8)
        ]
        results = generate_all(fresh._driver, requests, fresh._need().places, False)
    for i, result in enumerate(results):
        expected = alone if i == 3 else plain
        assert result.token_ids == expected.token_ids and result.logprobs == expected.logprobs, i


def make_folder(llm):
    from pathlib import Path

    return Path(str(llm._loaded.checkpoint.path)).parent


def test_the_same_in_every_mode(llm, folder):
    """Chunks, threads, company, too few blocks, by hand, forked, rewound: one hash."""
    changes = strong(llm)
    whole = llm.generate(PROMPT, **NEW, interventions=changes)
    ids = [*PROMPT, *whole.token_ids]
    by_hand = llm.begin(PROMPT, **NEW, interventions=changes)
    by_hand.run()
    assert by_hand.tokens == whole.token_ids
    fork = by_hand.rewind(6).fork()
    fork.run()
    assert fork.tokens == whole.token_ids
    expected = None
    for options in ({"num_threads": 1, "prefill_chunk": 5}, {"prefill_chunk": 64}, {"prefix_caching": False}):
        with opened(folder, *llm.made_of, **options) as other:
            assert other.generate(PROMPT, **NEW, interventions=changes).token_ids == whole.token_ids
            # step ranges count from the end of what is given as the prompt: only those without are compared here
            rows = digest(other.logits(ids, interventions=changes[:4]))
            expected = rows if expected is None else expected
            assert rows == expected
    assert digest(llm.logits(ids, interventions=changes[:4])) == expected


def test_nothing_is_shared_between_different_interventions(llm):
    """After each other, in every order, through the same prefix cache."""
    sets = [
        [],
        [ZeroAblate(0)],
        [ZeroAblate(1)],
        [Steer(vector(llm), 0)],
        [Steer(vector(llm), 0, positions=(3, 9))],
    ]
    expected = []
    for changes in sets:
        with opened(make_folder(llm), *llm.made_of, prefix_caching=False) as alone:
            expected.append(alone.generate(PROMPT, **NEW, logprobs=2, interventions=changes))
    for i in (0, 1, 2, 3, 4, 1, 0, 4, 2, 3, 0):
        found = llm.generate(PROMPT, **NEW, logprobs=2, interventions=sets[i])
        assert found.token_ids == expected[i].token_ids and found.logprobs == expected[i].logprobs
    again = llm.generate(PROMPT, **NEW, interventions=sets[1])
    assert again.counts.reused > 0  # with its own kind it does share


def test_the_numpy_twin_says_the_same(folder):
    """Within float32 rounding, on float weights."""
    for name in models:
        with (
            opened(folder, name, "F32") as ours,
            LLM(make(folder, name, "gguf", "F32"), backend="reference") as twin,
        ):
            changes = strong(ours)[:-1]  # the last one acts at step 1, and nothing is generated here
            a, b = ours.logits(PROMPT, interventions=changes), twin.logits(PROMPT, interventions=changes)
            assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max(), name


def test_forced_tokens(llm):
    found = llm.generate(
        PROMPT, **NEW, n=2, temperature=1.0, seed=1, interventions=[ForceToken(2, 7), ForceToken(5, 9)]
    )
    for sample in found.outputs:
        assert sample.token_ids[2] == 7 and sample.token_ids[5] == 9
    plain = llm.generate(PROMPT, **NEW, temperature=1.0, seed=1)
    assert plain.token_ids[:2] == found.token_ids[:2]
    with pytest.raises(UsageError, match="token id 320 is not in the vocabulary"):
        llm.generate(PROMPT, **NEW, interventions=[ForceToken(2, 320)])
    both = llm.generate(PROMPT, SamplingParams(**NEW, force_at={3: 8}), interventions=[ForceToken(2, 7)])
    over = llm.generate(PROMPT, **NEW, force_at={3: 8, 2: 7}, interventions=[ForceToken(2, 7)])
    assert both.token_ids[2:4] == over.token_ids[2:4] == [7, 8]
    for forced, given in (
        ([ForceToken(2, 7), ForceToken(2, 9)], {}),
        ([ForceToken(2, 9)], {"force_at": {2: 7}}),
    ):
        with pytest.raises(UsageError, match="expected one token for step 2, got 7 and 9"):
            llm.generate(PROMPT, **NEW, **given, interventions=forced)
    with pytest.raises(UsageError, match="force_at"):
        llm.generate(PROMPT, **NEW, force_at=5, interventions=[ForceToken(2, 7)])


def test_what_never_comes_into_effect_is_said(llm):
    """At once where it is known, else in the result; and it changes nothing."""
    rows, layers = np.stack([vector(llm, i) for i in range(4)]), len(llm.model.layers)
    last = len(PROMPT) - 1
    beyond = [
        (Steer(vector(llm), 0, positions=(500, None)), "Steer at layer 0 acts at positions from 500 on, and"),
        (Scale(2.0, 1, positions=(last + 1, last + 3)), "Scale at layer 1 acts at positions 37 to 38, and"),
        (ZeroAblate(1, steps=(1, 2)), "ZeroAblate at layer 1 acts at positions 37 to 37, and"),
        (ZeroAblate(1, positions=(2, 9), steps=(0, None)), "acts at no position"),
        (Patch(rows, 1, start=500), "Patch at layer 1 acts at positions 500 to 503, and"),
        (
            Patch(rows, 1, start=last - 2),
            "Patch at layer 1 acts at positions 34 to 37, and",
        ),  # one row too many
        (ForceToken(0, 7), "ForceToken acts where tokens are chosen, and here none is"),
    ]
    for wrong, message in beyond:
        calls = [
            lambda given: llm.logits(PROMPT, interventions=given),
            lambda given: llm.trace(PROMPT, interventions=given),
            lambda given: llm.lens(PROMPT, positions=[3], interventions=given),
            lambda given: llm.attribution(PROMPT, interventions=given),
            lambda given: llm.attention(PROMPT, 0, interventions=given),
            lambda given: llm.dependence(PROMPT, interventions=given),
        ]
        for call in calls:
            with pytest.raises(UsageError, match=message):
                call([wrong])
    captured = llm.trace(PROMPT, Capture(sites=("q", "k", "resid_pre", "resid_post")))
    for call in (llm.lens, llm.rollout):
        with pytest.raises(UsageError, match="what was captured stands"):
            call(captured, interventions=[ZeroAblate(0)])
    # Of a request: max_tokens tells how far it may go at most; its last token is never computed.
    for wrong in (beyond[0][0], beyond[4][0], ForceToken(12, 7), Patch(rows, 1, start=last + 12 - 3)):
        with pytest.raises(UsageError, match="acts at|is forced at step 12, and there are steps 0 to 11"):
            llm.generate(PROMPT, **NEW, interventions=[wrong])
    with pytest.raises(
        UsageError, match="force_at: token 7 is forced at step 12, and there are steps 0 to 11"
    ):
        llm.generate(PROMPT, **NEW, force_at={12: 7})
    with pytest.raises(UsageError, match=f"and the context has positions 0 to {llm.context_length - 1}"):
        llm.generate(PROMPT, interventions=[Patch(rows, 1, start=llm.context_length - 3)])
    reached = [ForceToken(11, 7), Patch(rows, layers - 1, start=last + 11 - 3)]
    assert llm.generate(PROMPT, **NEW, interventions=reached).notes == ()


def test_what_did_not_come_into_effect_is_a_note(llm):
    plain = llm.generate(PROMPT, **NEW, n=2, temperature=1.0, seed=5)
    assert plain.notes == ()
    ending = {"temperature": 1.0, "seed": 5, "n": 2, "max_tokens": 12, "ignore_eos": True}
    stop = plain.outputs[0].token_ids[3]
    ends = [s.token_ids.index(stop) + 1 if stop in s.token_ids else 12 for s in plain.outputs]
    changes = [ForceToken(11, 7), Scale(2.0, 0, steps=(11, 12))]
    found = llm.generate(PROMPT, **ending, stop_token_ids=[stop], interventions=changes)
    assert [s.token_ids for s in found.outputs if len(s.token_ids) < 12] == [
        s.token_ids[:end] for s, end in zip(plain.outputs, ends, strict=True) if end < 12
    ]
    expected = []
    for index, end in enumerate(ends):
        if end < 12:
            at, last = len(PROMPT) + 10, len(PROMPT) + end - 2
            scale = f"Scale at layer 0 acts at positions {at} to {at}; the last one computed was {last}"
            forced = f"token 7 is forced at step 11; there were {end} steps"
            expected += [f"sample {index}: not in effect: {line}" for line in (scale, forced)]
    assert len(expected) >= 2 and list(found.notes) == expected == found.to_dict()["notes"]
    assert expected[0] in repr(found) and "is forced at step 11" in found._repr_html_()


def test_a_generation_tells_what_is_still_to_come(llm):
    changes = [Patch(np.stack([vector(llm)] * 3), 0, start=len(PROMPT)), ForceToken(4, 7)]
    with llm.begin(PROMPT, ignore_eos=True, interventions=changes) as generation:
        patch = "not in effect: Patch at layer 0 acts at positions 37 to 39; the last one computed was "
        forced = "not in effect: token 7 is forced at step 4; there were "
        for steps, expected in ((3, [f"{patch}38", f"{forced}3 steps"]), (1, [f"{forced}4 steps"]), (1, [])):
            generation.run(steps)
            assert generation.notes == expected
        assert generation.tokens[4] == 7
    with pytest.raises(UsageError, match="acts at no position: its positions and steps have none in common"):
        llm.begin(PROMPT, interventions=[Scale(2.0, 0, positions=(0, 3), steps=(0, None))])


def test_steps_count_from_the_end_of_the_text_whatever_rows_are_asked_for(llm):
    """The lens and attribution compute no more than they need; that moves no intervention."""
    change = [Steer(vector(llm, size=3.0), 0, steps=(0, None))]
    assert not np.array_equal(llm.lens(PROMPT, interventions=change).ranks[-1], llm.lens(PROMPT).ranks[-1])
    whole, some = llm.lens(PROMPT), llm.lens(PROMPT, positions=[20], interventions=change)
    assert np.array_equal(some.top_logprobs[0], whole.top_logprobs[20])
    plain = llm.attribution(PROMPT, 7, position=20)
    assert llm.attribution(PROMPT, 7, position=20, interventions=change).logit == plain.logit


def test_with_every_strategy(llm):
    """Speculation, beams, best of n and exact search see the changed model, as scoring along their outputs says."""
    changes, short = strong(llm), {"max_tokens": 3, "ignore_eos": True}
    repeated = (PROMPT[:9] * 4)[:33]
    plain = llm.generate(repeated, **NEW, interventions=changes)
    for speculation in ("auto", "jacobi"):
        found = llm.generate(repeated, **NEW, speculation=speculation, interventions=changes)
        assert found.token_ids == plain.token_ids

    def logprob(tokens):
        generation = llm.begin(PROMPT, ignore_eos=True, interventions=changes)
        total = 0.0
        for token in tokens:
            total += generation.peek().distribution.logprob(token)
            generation.force(token)
        return total

    beams = llm.beam_search(PROMPT, max_tokens=3, num_beams=3, ignore_eos=True, interventions=changes)
    exact = llm.search(PROMPT, max_tokens=2, ignore_eos=True, interventions=changes)
    for output in (*beams.outputs, *exact.outputs):
        assert output.logprob == pytest.approx(logprob(output.token_ids), abs=1e-6)
    assert exact.certified and exact.certificate.verify(llm)
    best = llm.best_of(PROMPT, n=3, **short, temperature=1.0, seed=4, interventions=changes)
    samples = llm.generate(PROMPT, n=3, **short, temperature=1.0, seed=4, interventions=changes)
    assert best.best.token_ids in [sample.token_ids for sample in samples.outputs]
    with pytest.raises(UsageError, match="looks into the model itself"):
        llm.contrastive_search(PROMPT, max_tokens=2, interventions=changes)


def test_misuse_is_said_before_anything_runs(llm):
    layers, width = len(llm.model.layers), llm.model.width
    for wrong, message in (
        (Steer(vector(llm), layers), f"layers: expected numbers from 0 to {layers - 1}"),
        (Steer(np.ones(width + 1), 0), f"vector: expected {width} values"),
        (ZeroAblate(0, "heads", heads=(99,)), "heads: z has heads 0 to"),
        ("zero", "interventions: expected"),
    ):
        with pytest.raises(UsageError, match=message):
            llm.generate(PROMPT, **NEW, interventions=[wrong])
    with pytest.raises(UsageError, match="a context that slides"):
        llm.generate(
            PROMPT, max_tokens=5, overflow="slide", interventions=[Steer(vector(llm), 0, steps=(0, 1))]
        )
