"""Views of what flows: the lens, attribution, attention, dependence, each against the model itself."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM, Capture, UsageError
from pellucid.glass import lens as lens_module
from pellucid.glass.attention import attention_weights
from pellucid.glass.lens import lens_capture, make_lens, readout, settled, stream_of
from pellucid.models.base import models
from pellucid.ops.reference import round_to_kv_format
from pellucid.sampling.distribution import Distribution

IDS = np.random.default_rng(3).integers(0, 320, 40).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module", params=[(name, quant) for name in models for quant in ("F32", "Q8_0")],
                ids=lambda pair: "-".join(pair))  # fmt: skip
def llm(request, folder):
    name, quant = request.param
    with LLM(make(folder, name, "gguf", quant), num_threads=2) as loaded:
        loaded.quant = quant
        yield loaded


def softmax_logprobs(logits):
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


# --- lens -------------------------------------------------------------------------------------------------
def test_the_last_column_is_the_model_bit_for_bit(llm):
    captured = llm.trace(IDS, lens_capture(len(llm.model.layers), (0, None)))
    stream = stream_of(captured)
    assert stream.shape == (40, len(llm.model.layers) + 1, llm.model.width)
    logits = llm.logits(IDS)
    assert np.array_equal(readout(llm.model, stream[:, -1]), logits)
    lens = llm.lens(captured, k=3)
    for row in (0, 17, 39):
        found = Distribution(logits[row])
        assert lens.top_ids[row, -1].tolist() == found.top(3)
        assert lens.top_logprobs[row, -1, 0] == np.float32(found.logprob(found.top(1)[0]))


def test_every_column_by_hand(llm):
    captured = llm.trace(IDS, lens_capture(len(llm.model.layers), (0, None)))
    lens = llm.lens(IDS, k=4)
    assert lens.layers == ("embed", *map(str, range(len(llm.model.layers))))
    assert lens.tokens[:-1].tolist() == IDS[1:]
    for column in range(len(lens.layers)):
        logits = readout(llm.model, stream_of(captured)[:, column])
        for row in range(40):
            logprobs, token = softmax_logprobs(logits[row]), lens.tokens[row]
            assert lens.ranks[row, column] == int((logits[row] > logits[row][token]).sum())
            assert lens.logprobs[row, column] == pytest.approx(logprobs[token], abs=1e-5)
            assert lens.entropies[row, column] == pytest.approx(
                -(np.exp(logprobs) * logprobs).sum(), abs=1e-4
            )
    assert lens.tokens[-1] == llm.logits(IDS)[-1].argmax() and lens.ranks[-1, -1] == 0


def test_some_positions_are_those_rows_of_all(llm):
    whole, some = llm.lens(IDS), llm.lens(IDS, positions=[-30, 5, 12])
    assert some.positions.tolist() == [5, 10, 12]
    for name in ("tokens", "top_ids", "top_logprobs", "ranks", "logprobs", "entropies"):
        assert np.array_equal(getattr(some, name), getattr(whole, name)[[5, 10, 12]]), name
    named = llm.lens(IDS, positions=[5, 6], tokens=[7, 8])
    assert named.tokens.tolist() == [7, 8]


def test_many_blocks_and_threads_are_one_block_on_one(llm, monkeypatch):
    """Few rows of logits at a time, cut in the midst of a position."""
    columns, rows = len(llm.model.layers) + 1, 12
    stream = stream_of(llm.trace(IDS[:rows], lens_capture(columns - 1, (0, None))))
    tokens = np.array([*IDS[1:rows], -1], np.int32)
    tokens[4] = -1
    given = (llm.model, stream, np.arange(rows, dtype=np.int32), tokens, 4, nullcontext)
    whole = make_lens(*given)
    for at_once, threads in ((7, 3), (2, 3), (1, 1)):  # with fewer rows than threads, too
        monkeypatch.setattr(lens_module, "LOGITS_BYTES", at_once * 4 * llm.model.vocabulary_size)
        parts = make_lens(*given, num_threads=threads)
        for name in ("tokens", "top_ids", "top_logprobs", "ranks", "logprobs", "entropies"):
            assert np.array_equal(getattr(parts, name), getattr(whole, name)), (name, at_once, threads)
    for row in (4, rows - 1):
        assert whole.tokens[row] == whole.top_ids[row, -1, 0] and whole.ranks[row, -1] == 0


def test_settled():
    from pellucid.glass.lens import Lens

    ranks = np.array([[5, 0, 3, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]], np.int32)
    lens = Lens(np.arange(3), ("embed", "0", "1", "2", "3"), *[None] * 3, ranks, None, None)  # type: ignore[arg-type]
    assert lens.settled().tolist() == [3, 0, 5]


def test_settled_is_the_least_layer_from_which_on_all_ranks_are_0():
    for count in range(6):
        for ranks in product((0, 1, 7), repeat=count):
            assert settled(ranks) == min(c for c in range(count + 1) if not any(ranks[c:]))


def test_misuse_of_the_lens(llm):
    with pytest.raises(UsageError, match="positions: expected some of 0 to 39, got 40"):
        llm.lens(IDS, positions=[40])
    with pytest.raises(UsageError, match="tokens: expected one token id, or 2"):
        llm.lens(IDS, positions=[1, 2], tokens=[3])
    with pytest.raises(UsageError, match="'resid_pre' was not captured") as told:
        llm.lens(llm.trace(IDS))
    assert 'capture with Capture(sites=("resid_pre", "resid_post"))' in str(told.value)
    llm.lens(llm.trace(IDS, Capture(sites=("resid_pre", "resid_post"))))  # what it says will do
    with pytest.raises(UsageError, match="only norms were kept"):
        llm.lens(llm.trace(IDS, Capture(sites=("resid_pre", "resid_post"), reduce="norm")))
    with pytest.raises(UsageError, match=r"attention: 'q' was not captured of layer 1; .*\(\"q\", \"k\"\)"):
        llm.attention(llm.trace(IDS), 1)


# --- attribution ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("heads", [True, False])
def test_attribution_sums_to_the_logit(llm, heads):
    logits = llm.logits(IDS)
    for position, token, against in ((-1, None, None), (20, 7, None), (20, 7, 9)):
        found = llm.attribution(IDS, token, position=position, against=against, heads=heads)
        row = logits[position]
        chosen = int(row.argmax()) if token is None else token
        expected = float(row[chosen]) - (0.0 if against is None else float(row[against]))
        assert found.token_id == chosen and found.logit == expected
        assert found.contributions.sum() == pytest.approx(expected, abs=1e-4)
        scale = np.abs(found.contributions).max()
        rounding = dict(zip(found.names, found.contributions, strict=True))["rounding"]
        # Of float models nothing but float32 sums is left over; of quantised ones the rounding of x to int8.
        assert abs(rounding) <= (1e-4 if llm.quant == "F32" else 0.03) * max(1.0, scale)


def test_heads_sum_to_their_layer(llm):
    apart = llm.attribution(IDS, 7, heads=True)
    whole = dict(
        zip(*(lambda a: (a.names, a.contributions))(llm.attribution(IDS, 7, heads=False)), strict=True)
    )
    for layer in range(len(llm.model.layers)):
        parts = [c for n, c in zip(apart.names, apart.contributions, strict=True)
                 if n.startswith((f"attention {layer}.", f"attention {layer} bias"))]  # fmt: skip
        assert len(parts) >= 2
        tolerance = 1e-4 if llm.quant == "F32" else 0.05
        assert sum(parts) == pytest.approx(whole[f"attention {layer}"], abs=tolerance)


# --- attention --------------------------------------------------------------------------------------------
def test_attention_weights_give_the_heads_outputs(llm):
    """Weights times values are what the heads gave (site z)."""
    captured = llm.trace(IDS, Capture(sites=("q", "k", "v", "z")))
    kv_format = llm.settings["kv_format"].value
    for layer, spec in enumerate(llm.model.layers):
        weights = attention_weights(llm.model, captured, layer, kv_format)
        assert np.allclose(weights.sum(-1), 1, atol=1e-6)
        distance = np.arange(40)[:, None] - np.arange(40)[None]
        hidden = (distance < 0) | (distance >= (spec.window or 1000))
        assert (weights[:, hidden] == 0).all()
        values = captured.at("v", layer).reshape(40, spec.num_kv_heads, spec.head_dim)
        values = round_to_kv_format(values, kv_format)
        values = np.repeat(values, len(weights) // spec.num_kv_heads, axis=1)
        z = np.einsum("hqk,khd->qhd", weights, values).reshape(40, -1)
        tolerance = (
            5e-4 if kv_format == "i16" else 2e-5
        )  # its weights are rounded, too: 1/16383 of the largest
        assert np.abs(z - captured.at("z", layer)).max() <= tolerance * np.abs(z).max()
        assert np.array_equal(llm.attention(IDS, layer), weights)


def test_rollout_is_a_distribution_over_the_past(llm):
    rolled = llm.rollout(IDS)
    assert np.allclose(rolled.sum(-1), 1, atol=1e-5) and (np.triu(rolled, 1) == 0).all()
    total = np.eye(40)
    for layer in range(len(llm.model.layers)):
        total = 0.5 * (llm.attention(IDS, layer).mean(0, dtype=np.float64) @ total + total)
    assert np.allclose(rolled, total, atol=1e-6)


# --- dependence -------------------------------------------------------------------------------------------
def test_leave_one_out_is_running_without_that_token(llm):
    found = llm.dependence(IDS[:12])
    row = llm.logits(IDS[:12])[-1]
    token = int(row.argmax())
    assert found.token_id == token and found.logprob == Distribution(row).logprob(token)
    for i in range(12):
        without = Distribution(llm.logits(IDS[:i] + IDS[i + 1 : 12])[-1])
        assert found.values[i] == found.logprob - without.logprob(token)
    by_attention = llm.dependence(IDS[:12], method="attention")
    assert np.array_equal(by_attention.values, llm.rollout(IDS[:12])[-1].astype(np.float64))


def test_dependence_needs_two_tokens(llm):
    with pytest.raises(UsageError, match="at least two tokens"):
        llm.dependence([5])
