"""`activations="bf16"`: asked for at loading, part of what a model's numbers are, and told wherever they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_checkpoints import make

import pellucid.fingerprint
from pellucid import LLM, AsyncLLM, read_run
from pellucid.errors import SessionFileError, UsageError
from pellucid.glass.rows import load_options_of, numbers_differ

PROMPT = list(range(5, 25))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bf16"), "llama", "gguf", "BF16")


@pytest.fixture(scope="module", params=["cpu", "reference"])
def pair(request, path):
    """The same model with float32 activations and with bf16, which alone sets them apart: K and V are alike."""
    with (
        LLM(path, backend=request.param, num_threads=2) as plain,
        LLM(path, backend=request.param, num_threads=2, activations="bf16", kv_format="f32") as rounding,
    ):
        yield plain, rounding


def test_the_setting_is_told(pair):
    plain, rounding = pair
    told = [(llm.settings["activations"].value, llm.settings["activations"].origin) for llm in pair]
    assert told == [("f32", "default"), ("bf16", "caller")]
    assert "bf16 activations" in repr(rounding) and "activations" not in repr(plain)
    result = rounding.generate(PROMPT, max_tokens=2)
    assert result.settings["activations"].value == "bf16"


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_keys_and_values_are_integers_unless_said(path, backend):
    with LLM(path, backend=backend, activations="bf16") as llm, LLM(path, backend=backend) as plain:
        assert [one.settings["kv_format"].value for one in (llm, plain)] == ["i16", "f32"]
        told = llm.settings["kv_format"]
        assert (told.origin, told.note) == ("default", "auto: i16 for bf16 activations")
        rows = llm.logits(PROMPT)
        assert 0 < np.abs(plain.logits(PROMPT) - rows).max() < 2e-2 * np.abs(rows).max()


def test_numbers_are_near_and_others(pair):
    plain, rounding = (llm.logits(PROMPT) for llm in pair)
    assert 0 < np.abs(plain - rounding).max() < 2e-2 * np.abs(plain).max()


def test_steps_have_the_bits_of_one_pass(pair):
    _, rounding = pair
    result = rounding.generate(PROMPT, max_tokens=8, temperature=1.0, seed=1, ignore_eos=True, logprobs=2)
    rows = rounding.logits(PROMPT + result.outputs[0].token_ids)
    generation = rounding.begin(PROMPT, max_tokens=8, temperature=1.0, seed=1, ignore_eos=True)
    for index, token in enumerate(result.outputs[0].token_ids):
        assert np.array_equal(generation.peek().logits, rows[len(PROMPT) - 1 + index])
        assert generation.step().token_id == token


@pytest.mark.parametrize("quant", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_without_bf16_matrices_it_is_refused(tmp_path, quant, backend):
    other = make(tmp_path, "llama", "gguf", quant)
    with pytest.raises(UsageError, match=f"activations: bf16 is for matrices in BF16.*{quant}"):
        LLM(other, activations="bf16", backend=backend)


def test_other_words_are_refused(path):
    with pytest.raises(UsageError, match="activations: expected one of f32, bf16, got 'f16'"):
        LLM(path, activations="f16")


def test_a_session_is_of_its_activations(pair, tmp_path):
    plain, rounding = pair
    for llm, other in ((plain, rounding), (rounding, plain)):
        generation = llm.begin(PROMPT, max_tokens=6, ignore_eos=True)
        generation.run(3)
        generation.save(tmp_path / "s")
        with pytest.raises(SessionFileError, match="another format of activations .*kv=False") as told:
            other.restore(tmp_path / "s")
        assert "\n" not in str(told.value)
        assert other.restore(tmp_path / "s", kv=False).tokens == generation.tokens
        assert np.array_equal(llm.restore(tmp_path / "s").peek().logits, generation.peek().logits)


def test_files_from_before_have_f32(pair, tmp_path, monkeypatch):
    """Their fingerprints say nothing of activations."""
    plain, rounding = pair
    generation = plain.begin(PROMPT, max_tokens=6, ignore_eos=True)
    generation.run(3)
    prints = pellucid.fingerprint.fingerprint(plain)
    old = {name: value for name, value in prints.items() if name != "activations"}
    with monkeypatch.context() as patched:
        patched.setattr("pellucid.held.session_save.fingerprint", lambda llm: old)
        patched.setattr("pellucid.front.recorder.fingerprint", lambda llm: old)
        generation.save(tmp_path / "s")
        plain.generate(PROMPT, max_tokens=2, record=tmp_path / "run")
    assert b'"activations": "' not in (tmp_path / "s").read_bytes()
    assert plain.restore(tmp_path / "s").tokens == generation.tokens
    with pytest.raises(SessionFileError, match=r"activations \(f32, here bf16"):
        rounding.restore(tmp_path / "s")
    run = read_run(tmp_path / "run")
    assert numbers_differ(run, plain) == []
    assert any(line.startswith("activations: f32 then, bf16") for line in numbers_differ(run, rounding))


def test_a_run_says_its_activations(pair, tmp_path):
    plain, rounding = pair
    rounding.generate(PROMPT, max_tokens=6, temperature=1.0, seed=3, ignore_eos=True, record=tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert load_options_of(run)["activations"] == "bf16"
    again = rounding.replay(tmp_path / "run")
    assert again.equal and not again.notes
    other = plain.replay(tmp_path / "run")
    assert any("activations: bf16 then, f32 now" in note for note in other.notes)


def test_a_result_is_of_its_activations(pair):
    plain, rounding = pair
    result = rounding.generate(PROMPT, max_tokens=2)
    if plain.settings["backend"].value == "cpu":
        with pytest.raises(UsageError, match="another format of activations: 'bf16', here 'f32'"):
            plain.why(result)


def test_asyncio_takes_it(path):
    import asyncio

    async def tokens():
        async with AsyncLLM(path, activations="bf16", num_threads=1) as allm:
            result = await allm.generate(PROMPT, max_tokens=6, ignore_eos=True)
            return allm.llm.settings["activations"].value, result.token_ids

    value, ids = asyncio.run(tokens())
    with LLM(path, activations="bf16") as llm:
        assert (value, ids) == ("bf16", llm.generate(PROMPT, max_tokens=6, ignore_eos=True).token_ids)


def test_manifests_are_json(pair):
    assert json.loads(json.dumps(pellucid.fingerprint.fingerprint(pair[1])))["activations"] == "bf16"
