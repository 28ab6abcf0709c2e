"""Speculation by the front door: the same results as without, and what is told of it."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from tiny_checkpoints import make

from pellucid import LLM, SamplingParams
from pellucid.errors import UsageError

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "the", "dog", "saw", "it", "run", "to", "me"]
MODES = (
    {"speculation": "auto"},
    {"speculation": "always", "max_drafts": 6},
    {"speculation": "jacobi", "max_drafts": 5},
)


@pytest.fixture(scope="module", params=["llama", "gemma3"])  # gemma3: layers with a sliding window
def model(request, tmp_path_factory):
    path = make(tmp_path_factory.mktemp("speculation"), request.param, "gguf", "F32")
    with LLM(path, num_threads=2, prefill_chunk=32, draft_corpus=5000) as loaded:
        yield loaded


def prompts(count, seed=0):
    rng = random.Random(seed)
    for _ in range(count):
        piece = " ".join(rng.choices(WORDS, k=rng.randrange(1, 12)))
        yield piece if rng.random() < 0.5 else f"{piece}. {piece}. {piece}"


def random_params(rng):
    params = {
        "temperature": rng.choice([0.0, 0.0, 0.3, 1.0]),
        "seed": rng.randrange(1000),
        "max_tokens": rng.choice([1, 2, 17, 40]),
        "top_p": rng.choice([1.0, 0.9]),
        "repetition_penalty": rng.choice([1.0, 1.2]),
        "frequency_penalty": rng.choice([0.0, 0.4]),
        "no_repeat_ngram_size": rng.choice([0, 3]),
        "mirostat": rng.choice([0, 0, 0, 2]),
        "logprobs": rng.choice([None, 2]),
        "ignore_eos": rng.random() < 0.3,
        "n": rng.choice([1, 1, 2]),
    }
    if rng.random() < 0.2:
        params |= {"regex": "(ab|ba){3,9}c", "ignore_eos": False, "no_repeat_ngram_size": 0}
    if rng.random() < 0.3:
        params["stop"] = [rng.choice(["e", "ab", "t c"])]
    return params


def shown(result):
    """All of a result that is to be the same; log-probabilities bit for bit."""
    return [(s.text, s.token_ids, s.finish_reason, s.stop_match, s.logprobs) for s in result.outputs]


def test_two_hundred_prompts_with_and_without(model):
    rng = random.Random(4)
    guessed = accepted = 0
    for prompt in prompts(200):
        params = random_params(rng)
        plain = model.generate(prompt, **params)
        assert plain.speculation is None or params.get("regex")
        for mode in MODES:
            result = model.generate(prompt, **params, **mode)
            assert shown(result) == shown(plain), (prompt, params, mode)
            if result.speculation is not None:
                guessed += result.speculation.drafted
                accepted += result.speculation.accepted
                check_trace(result)
    assert guessed > 1000 and accepted > 100


def check_trace(result):
    total = result.speculation
    for sample in result.outputs:
        assert len(sample.from_draft) == len(sample.token_ids)
        for each in sample.draft_passes:
            flags = sample.from_draft[each.after : each.after + each.accepted]
            assert 0 <= each.accepted <= each.drafted and all(flags)
    assert total.accepted == sum(sum(s.from_draft) for s in result.outputs)
    assert total.passes == sum(len(s.draft_passes) for s in result.outputs)
    assert total.drafted == sum(p.drafted for s in result.outputs for p in s.draft_passes)
    assert 0 <= total.acceptance <= 1 and not total.failures
    json.dumps(result.to_dict())


def test_in_company(model):
    """Several requests in the same passes, each with drafts of its own."""
    params = [SamplingParams(**random_params(random.Random(i)), **MODES[i % 3]) for i in range(24)]
    alone = [
        shown(model.generate(p, q.replace(speculation="off")))
        for p, q in zip(prompts(24), params, strict=True)
    ]
    together = model.generate(list(prompts(24)), params)
    assert [shown(result) for result in together] == alone


def test_a_stream_tells_what_was_guessed(model):
    text = "the cat sat. the cat sat. the cat sat. the cat"
    wanted = {"max_tokens": 40, "ignore_eos": True, "speculation": "always"}
    result = model.generate(
        text, **wanted, cache_salt="a"
    )  # of one salt, the second would guess from the first
    chunks = list(model.stream(text, **wanted, cache_salt="b"))
    assert "".join(chunk.text for chunk in chunks) == result.text
    assert tuple(chunk.from_draft for chunk in chunks) == result.outputs[0].from_draft


def test_the_corpus_is_of_its_salt(tmp_path):
    """What one tenant has put out is no guess for another: nothing of it can be told from times."""
    path = make(tmp_path, "llama", "gguf", "F32")
    with LLM(path, num_threads=1, draft_corpus=2000) as llm:
        wanted = {
            "max_tokens": 30,
            "ignore_eos": True,
            "speculation": "always",
            "temperature": 1.5,
            "seed": 3,
        }
        first = llm.generate("ab", **wanted, cache_salt="one")
        again = llm.generate("ab", **wanted, cache_salt="one")
        other = llm.generate("ab", **wanted, cache_salt="two")
        sources = [{p.source for p in r.outputs[0].draft_passes} for r in (first, again, other)]
        assert first.text == again.text == other.text
        assert "corpus" in sources[1] and "corpus" not in sources[0] | sources[2]
        assert again.speculation.accepted > first.speculation.accepted


def test_a_draft_model_guesses_with_the_same_noise(tmp_path):
    """The same weights as a draft model: every guess is right, also at a temperature, since the noise is shared."""
    path = make(tmp_path, "llama", "gguf", "F32")
    with LLM(path, num_threads=1) as small, LLM(path, num_threads=1, draft_model=small) as llm:
        for params in (
            {},
            {"temperature": 1.0, "seed": 5},
            {"temperature": 0.7, "top_p": 0.9, "seed": 1, "n": 3},
        ):
            wanted = {"max_tokens": 40, "ignore_eos": True, **params}
            plain = llm.generate("xyz", **wanted)
            result = llm.generate("xyz", **wanted, speculation="always", max_drafts=4)
            assert shown(result) == shown(plain)
            of_model = [p for s in result.outputs for p in s.draft_passes if p.source == "model"]
            assert of_model and all(p.accepted == p.drafted for p in of_model)
        auto = llm.generate("xyz", **wanted, speculation="auto")
        assert shown(auto) == shown(plain)


def test_another_model_drafts(tmp_path):
    big = make(tmp_path, "llama", "gguf", "F32")
    with LLM(big, num_threads=1) as llm:
        plain = [llm.generate(p, max_tokens=30, temperature=0.8, seed=1, ignore_eos=True) for p in prompts(6)]
    small = make(tmp_path / "small", "llama", "gguf", "F32", seed=9)
    with LLM(big, num_threads=1, draft_model=small) as llm:
        assert "small" in llm.settings["draft_model"].value
        for prompt, expected in zip(prompts(6), plain, strict=True):
            result = llm.generate(
                prompt, max_tokens=30, temperature=0.8, seed=1, ignore_eos=True, speculation="always"
            )
            assert shown(result) == shown(expected)
            assert {p.source for p in result.outputs[0].draft_passes} <= {"context", "model"}


def test_what_cannot_draft_is_refused(tmp_path):
    path = make(tmp_path, "llama", "gguf", "F32")
    with pytest.raises(UsageError, match="draft_model: expected an LLM, a path or a name, got int"):
        LLM(path, num_threads=1, draft_model=3)
    with pytest.raises(UsageError, match="draft_corpus: expected an int from 0"):
        LLM(path, num_threads=1, draft_corpus=-1)
    with (
        LLM(path, num_threads=1) as a,
        LLM(path, num_threads=1, draft_model=a) as b,
        pytest.raises(UsageError, match="it has a draft_model itself"),
    ):
        LLM(path, num_threads=1, draft_model=b)
    with LLM(path, num_threads=1) as llm:
        for wrong in ({"speculation": "maybe"}, {"max_drafts": 0}, {"max_drafts": 65}):
            with pytest.raises(UsageError):
                llm.generate("a", **wrong)
        with pytest.raises(UsageError, match="max_drafts=3 does nothing without speculation"):
            llm.effective_settings(max_drafts=3)
        settings = llm.effective_settings(max_drafts=3, speculation="off")
        assert "speculation is not set" in settings.without_effect()["max_drafts"]


def test_a_generation_driven_by_hand_runs_with_guesses(model):
    """`run` guesses, and every step is what it was: after forks, rewinds, forced tokens and other parameters too."""
    rng = random.Random(8)
    flags = 0
    for i, prompt in enumerate(prompts(12, seed=5)):
        params = {"temperature": rng.choice([0.0, 0.8]), "seed": i, "ignore_eos": True, "max_tokens": 60}
        params |= {"repetition_penalty": rng.choice([1.0, 1.2]), "logprobs": rng.choice([None, 1])}
        plain = model.begin(prompt, **params)
        fast = model.begin(prompt, **params, speculation="always", max_drafts=5)
        for _ in range(6):
            move = rng.choice(["run", "run", "rewind", "fork", "force", "peek"])
            count = rng.randrange(1, 9)
            if move == "run":
                assert fast.run(count) == plain.run(count)
            elif move == "rewind":
                count = min(count, len(plain.tokens))
                plain.rewind(count), fast.rewind(count)
            elif move == "fork":
                other = fast.fork()
                assert other.run(4) == plain.fork().run(4)
            elif move == "force":
                token = rng.randrange(5, 200)
                plain.force(token), fast.force(token)
            else:
                assert (fast.peek().logits == plain.peek().logits).all()
            assert fast.tokens == plain.tokens and fast.text == plain.text
            for ours, theirs in zip(fast.steps, plain.steps, strict=True):
                assert (ours.logprob, ours.processed_logprob) == (theirs.logprob, theirs.processed_logprob)
        assert fast.run() == plain.run() and fast.finish_reason == plain.finish_reason
        # What it holds is what the plain one holds: the next logits and those of every position.
        assert (
            model.logits(fast.token_array.tolist()).tobytes()
            == model.logits(plain.token_array.tolist()).tobytes()
        )
        flags += sum(step.from_draft for step in fast.steps)
        assert not any(step.from_draft for step in plain.steps)
    assert flags > 20


def test_keys_and_values_after_refused_guesses_are_those_of_the_plain_run(tmp_path):
    """Byte for byte, of every layer and block, for what was accepted (prefix caching off: nothing is shared)."""
    path = make(tmp_path, "gemma3", "gguf", "F32")
    kept = []
    for mode in ("off", "always"):
        with LLM(path, num_threads=1, prefix_caching=False) as llm:
            generation = llm.begin("ab ab ab ab", speculation=mode, ignore_eos=True, temperature=1.0, seed=3)
            generation.run(50)
            generation.peek()
            held = generation._held
            snapshot = llm._driver.snapshot([held])
            kept.append((generation.tokens, held.num_computed, [a.tobytes() for a in snapshot.arrays]))
            guessed = sum(step.from_draft for step in generation.steps)
            rows = generation.cost.computed
    assert kept[0] == kept[1]
    assert guessed > 0 and rows > kept[1][1], "some guesses were right, and some were not"


def test_a_drafter_that_fails_is_told_of_and_changes_nothing(model, monkeypatch):
    from pellucid.decoding.drafts.context import ContextDrafter

    prompt, params = "ab ab ab ab", {"max_tokens": 20, "ignore_eos": True, "temperature": 0.9, "seed": 2}
    plain = model.generate(prompt, **params)

    def broken(self, history, most):
        raise MemoryError("no room for drafts")

    monkeypatch.setattr(ContextDrafter, "draft", broken)
    result = model.generate(prompt, **params, speculation="always", cache_salt="of its own")
    assert shown(result) == shown(plain)
    assert result.speculation.failures == (("context", "MemoryError: no room for drafts"),)
    assert result.to_dict()["speculation"]["failures"] == {"context": "MemoryError: no room for drafts"}
    assert "drafter 'context' failed: MemoryError: no room for drafts" in result.summary()
    generation = model.begin(prompt, **params, speculation="always")
    assert generation.run() == plain.text
    assert generation.guessing.failures == {"context": "MemoryError: no room for drafts"}


def test_asynchronous_requests_speculate_too(model):
    import asyncio

    from pellucid import AsyncLLM

    async def all_of_them():
        async with AsyncLLM(model) as engine:
            wanted = [engine.generate(p, max_tokens=20, seed=1, temperature=0.5, **MODES[i % 3])
                      for i, p in enumerate(prompts(9))]  # fmt: skip
            return await asyncio.gather(*wanted)

    results = asyncio.run(all_of_them())
    plain = [model.generate(p, max_tokens=20, seed=1, temperature=0.5) for p in prompts(9)]
    assert [shown(result) for result in results] == [shown(result) for result in plain]


def test_the_command_line(tmp_path):
    from click.testing import CliRunner

    from pellucid.cli.main import main

    path = str(make(tmp_path, "llama", "gguf", "F32"))
    common = ["generate", "ab ab ab ab", "-m", path, "--max-tokens", "20", "--ignore-eos", "--json"]
    runs = {
        mode: json.loads(CliRunner().invoke(main, [*common, *more]).stdout)
        for mode, more in {
            "off": [],
            "auto": ["--speculate", "auto"],
            "always": ["--speculation", "always", "--max-drafts", "3", "--draft-corpus", "100"],
            "model": ["--speculate", "always", "--draft-model", path],
        }.items()
    }
    assert len({str(run["outputs"][0]["token_ids"]) for run in runs.values()}) == 1
    assert runs["off"]["speculation"] is None and runs["always"]["speculation"]["drafted"] > 0
    assert runs["always"]["settings"]["speculation"]["value"] == "always"
    sources = {each["source"] for each in runs["model"]["outputs"][0]["draft_passes"]}
    assert sources <= {"context", "model"} and sources


def test_jacobi_by_hand_is_refused(model):
    with pytest.raises(UsageError, match="jacobi"):
        model.begin("a", speculation="jacobi")


@pytest.mark.slow
def test_two_hundred_prompts_of_a_real_model():
    """SmolLM2 on Spec-Bench's prompts: drafts from the text, and Jacobi blocks, give the bits of the plain run."""
    from real_models import real_model

    shared = Path(os.environ.get("PELLUCID_SHARED", Path(__file__).parents[4] / "shared"))
    file = shared / "data/eval/spec_bench.jsonl"
    if not file.is_file():
        pytest.skip(f"no Spec-Bench prompts at {file} (set PELLUCID_SHARED)")
    lines = file.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["turns"][0] for line in lines[:: len(lines) // 200]][:200]
    assert len(texts) == 200
    with LLM(real_model("smollm2")) as llm:
        ids = [llm.render_chat([{"role": "user", "content": text}])[-256:] for text in texts]
        params = [
            SamplingParams(max_tokens=24, temperature=i % 2 * 0.8, seed=i, repetition_penalty=1 + i % 3 * 0.1)
            for i in range(200)
        ]
        plain = llm.generate(ids, params)
        accepted = 0
        for mode in ({"speculation": "always", "max_drafts": 4}, {"speculation": "jacobi", "max_drafts": 3}):
            results = llm.generate(ids, [each.replace(**mode) for each in params])
            assert [shown(result) for result in results] == [shown(result) for result in plain]
            accepted += sum(result.speculation.accepted for result in results if result.speculation)
        for i in range(0, 200, 10):  # alone, where the policy finds it worth its while
            assert shown(llm.generate(ids[i], params[i], speculation="auto")) == shown(plain[i])
        assert accepted > 200
