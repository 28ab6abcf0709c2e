"""Stages against transformers' own classes: what each keeps, and the whole chain that `generate` would build.

transformers computes in float32 and we in float64, so a token whose probability is within 1e-5 of an edge may fall on
either side: the set kept must lie between ours with the parameter a little tighter and a little looser.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")

from transformers.generation import logits_process as hf  # noqa: E402

from pellucid.sampling.params import SamplingParams  # noqa: E402
from pellucid.sampling.record import Past  # noqa: E402
from pellucid.sampling.sampler import Sampler  # noqa: E402

VOCABULARY = 64
EOS = [0, 4]


def rows():
    """Plain, tied, holed, flat and sharp logits, float32."""
    rng = np.random.default_rng(0)
    for i in range(40):
        x = (rng.standard_normal(VOCABULARY) * (0.5, 1, 3, 8)[i % 4]).astype(np.float32)
        if i % 5 == 1:
            x = np.round(x)
        if i % 5 == 2:
            x[rng.random(VOCABULARY) < 0.5] = -np.inf
            x[3] = 1
        yield x


def histories():
    rng = np.random.default_rng(1)
    for i in range(40):
        tokens = rng.integers(0, (4, 9, 60)[i % 3], int(rng.integers(2, 30))).astype(np.int32)
        yield Past(tokens, int(rng.integers(1, len(tokens) + 1)), 0, np.array(EOS, np.int32))


def ours(x, past, **params):
    return Sampler(SamplingParams(**{"order": "hf", "temperature": 1, **params}), 0).process(past, x)


def theirs(processor, x, past):
    ids = torch.tensor(past.token_ids[None].astype(np.int64))
    return processor(ids, torch.tensor(x[None].copy()))[0].numpy()


def kept(x):
    return set(np.flatnonzero(x > -np.inf).tolist())


CUTS = [
    ("top_k", lambda v: hf.TopKLogitsWarper(v), (1, 3, 20, 64), 0),
    ("top_p", lambda v: hf.TopPLogitsWarper(v), (0.05, 0.5, 0.9, 0.99), 1),
    ("min_p", lambda v: hf.MinPLogitsWarper(v), (0.01, 0.2, 0.9), -1),
    ("typical_p", lambda v: hf.TypicalLogitsWarper(v), (0.1, 0.5, 0.95), 1),
    ("epsilon_cutoff", lambda v: hf.EpsilonLogitsWarper(v), (1e-3, 0.03, 0.4), -1),
    ("eta_cutoff", lambda v: hf.EtaLogitsWarper(v), (1e-3, 0.03, 0.4), -1),
    ("top_h", lambda v: hf.TopHLogitsWarper(v), (0.2, 0.5, 0.9), 1),
]


@pytest.mark.parametrize(("name", "warper", "values", "grows"), CUTS, ids=[c[0] for c in CUTS])
def test_kept_sets(name, warper, values, grows):
    equal = total = 0
    past = next(histories())
    for x in rows():
        for value in values:
            wanted = theirs(warper(value), x, past)
            assert np.array_equal(wanted[wanted > -np.inf], x[wanted > -np.inf])
            got = kept(ours(x, past, **{name: value}))
            total += 1
            if sorted(x[list(got)]) == sorted(
                x[list(kept(wanted))]
            ):  # by logits: equals at the edge are left open
                equal += 1
                continue
            assert grows, f"{name}={value} has no rounding"
            tight, loose = value * (1 - 1e-5 * grows), value * (1 + 1e-5 * grows)
            bounds = [kept(ours(x, past, **{name: min(v, 0.9999999)})) for v in (tight, loose)]
            assert len(bounds[0]) <= len(kept(wanted)) <= len(bounds[1]), (name, value)
    assert equal >= 0.97 * total


@pytest.mark.parametrize("keep", [2, 5])
def test_min_keep(keep):
    for x in rows():
        past = next(histories())
        for name, warper in (
            ("top_p", hf.TopPLogitsWarper(0.05, min_tokens_to_keep=keep)),
            ("min_p", hf.MinPLogitsWarper(0.9, min_tokens_to_keep=keep)),
            ("epsilon_cutoff", hf.EpsilonLogitsWarper(0.6, min_tokens_to_keep=keep)),
            ("eta_cutoff", hf.EtaLogitsWarper(0.9, min_tokens_to_keep=keep)),
        ):
            value = {"top_p": 0.05, "min_p": 0.9, "epsilon_cutoff": 0.6, "eta_cutoff": 0.9}[name]
            wanted = sorted(x[list(kept(theirs(warper, x, past)))].tolist())
            got = sorted(x[list(kept(ours(x, past, min_keep=keep, **{name: value})))].tolist())
            assert got == wanted, (name, "by their logits: equals at the edge are left open by transformers")


BY_HISTORY = [
    ("repetition", {"repetition_penalty": 1.3}, lambda p: hf.RepetitionPenaltyLogitsProcessor(1.3)),
    (
        "encoder_repetition",
        {"encoder_repetition_penalty": 1.7},
        lambda p: hf.EncoderRepetitionPenaltyLogitsProcessor(1.7, prompt(p)),
    ),
    ("ngram", {"no_repeat_ngram_size": 2}, lambda p: hf.NoRepeatNGramLogitsProcessor(2)),
    ("ngram_1", {"no_repeat_ngram_size": 1}, lambda p: hf.NoRepeatNGramLogitsProcessor(1)),
    (
        "encoder_ngram",
        {"encoder_no_repeat_ngram_size": 2},
        lambda p: hf.EncoderNoRepeatNGramLogitsProcessor(2, prompt(p)),
    ),
    (
        "sequence_bias",
        {"sequence_bias": {(1, 2): 2.0, (2,): -1.0, (0, 1, 2): 0.5}},
        lambda p: hf.SequenceBiasLogitsProcessor([[[1, 2], 2.0], [[2], -1.0], [[0, 1, 2], 0.5]]),
    ),
    (
        "bad_words",
        {"bad_words_ids": [[1, 2], [3], [0]]},
        lambda p: hf.NoBadWordsLogitsProcessor([[1, 2], [3], [0]], eos_token_id=EOS),
    ),
    ("suppress", {"banned_ids": [3, 9]}, lambda p: hf.SuppressTokensLogitsProcessor([3, 9])),
    (
        "begin_suppress",
        {"begin_suppress_tokens": [3, 9]},
        lambda p: hf.SuppressTokensAtBeginLogitsProcessor([3, 9], p.num_prompt),
    ),
    (
        "min_tokens",
        {"min_tokens": 5},
        lambda p: hf.MinNewTokensLengthLogitsProcessor(p.num_prompt, 5, EOS),
    ),
    (
        "decay",
        {"exponential_decay_start": 3, "exponential_decay_factor": 1.2},
        lambda p: hf.ExponentialDecayLengthPenalty((3, 1.2), EOS, p.num_prompt),
    ),
    (
        "forced_eos",
        {"forced_eos_ids": [5], "max_tokens": 4},
        lambda p: hf.ForcedEOSTokenLogitsProcessor(p.num_prompt + 4, 5),
    ),
    ("forced_bos", {"forced_bos_ids": [5]}, lambda p: hf.ForcedBOSTokenLogitsProcessor(5)),
    ("temperature", {"temperature": 0.7}, lambda p: hf.TemperatureLogitsWarper(0.7)),
]


def prompt(past):
    return torch.tensor(past.token_ids[None, : past.num_prompt].astype(np.int64))


@pytest.mark.parametrize(("params", "build"), [c[1:] for c in BY_HISTORY], ids=[c[0] for c in BY_HISTORY])
def test_what_the_history_does(params, build):
    changed = 0
    for x, past in zip(rows(), histories(), strict=True):
        wanted, got = theirs(build(past), x, past), ours(x, past, **params)
        assert kept(got) == kept(wanted)
        assert got == pytest.approx(wanted, rel=1e-6, abs=1e-6)
        changed += not np.array_equal(got, x)
    assert changed > 0 or "forced_bos_ids" in params


def test_the_chain_is_the_one_that_generate_builds():
    """Everything at once, in the order of transformers' own list."""
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_layer=1, n_embd=8, n_head=1)
    model = transformers.GPT2LMHeadModel(config)
    chances = {"temperature": 1.4, "top_k": 40, "top_p": 0.95, "min_p": 0.001, "typical_p": 0.9}
    cuts = {"top_h": 0.95, "epsilon_cutoff": 1e-3, "eta_cutoff": 2e-3}
    plain = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.2}
    lists = {"bad_words_ids": [[1, 2], [7]], "begin_suppress_tokens": [11]}
    generation = transformers.GenerationConfig(
        do_sample=True,
        **chances,
        **cuts,
        **plain,
        **lists,
        suppress_tokens=[9],
        min_new_tokens=3,
        exponential_decay_length_penalty=(2, 1.1),
        sequence_bias=[[[5], 1.5]],
        eos_token_id=EOS,
    )
    params = SamplingParams(
        order="hf",
        **chances,
        **cuts,
        **plain,
        **lists,
        banned_ids=[9],
        min_tokens=3,
        exponential_decay_start=2,
        exponential_decay_factor=1.1,
        sequence_bias=[[[5], 1.5]],
    )
    generation._eos_token_tensor = torch.tensor(EOS)
    equal = 0
    for x, past in zip(rows(), histories(), strict=True):
        # no equals: which of them stay at the edge of top-p is left open by transformers' sort
        x = np.where(x > -np.inf, x, -4) + np.linspace(0, 0.3, VOCABULARY)[::-1]
        x = x.astype(np.float32)
        chain = model._get_logits_processor(generation, past.num_prompt, encoder_input_ids=prompt(past))
        wanted, got = theirs(chain, x, past), Sampler(params, 0).process(past, x)
        equal += kept(got) == kept(wanted)
        both = sorted(kept(got) & kept(wanted))
        assert both and got[both] == pytest.approx(wanted[both], rel=1e-5, abs=1e-5)
        assert len(kept(got) ^ kept(wanted)) <= 2
    assert equal >= 35
