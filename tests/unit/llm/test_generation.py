"""A Generation against `generate`, and against fresh runs on the same tokens."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from pellucid import LLM, SamplingParams
from pellucid.errors import ContextOverflowError, UsageError

PROMPT = "Once upon a time there was"
KINDS = {
    "greedy": {},
    "sampled": {"temperature": 1.3, "seed": 5},
    "chain": {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "repetition_penalty": 1.2, "seed": 6},
    "penalties": {"presence_penalty": 0.7, "frequency_penalty": 0.3},
}


def records(generation):
    return [(r.position, r.token_id, r.kind) for r in generation.steps]


def logits_after(llm, ids):
    return llm.logits(ids)[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tokens_as_generate(llm, kind):
    params = KINDS[kind]
    expected = llm.generate(PROMPT, max_tokens=40, ignore_eos=True, **params)
    generation = llm.begin(PROMPT, max_tokens=40, ignore_eos=True, **params)
    deltas = [step.delta for step in generation]
    assert generation.tokens == expected.token_ids
    assert generation.text == "".join(deltas) == expected.text
    assert generation.finish_reason == expected.finish_reason == "length"
    assert generation.prompt_tokens == expected.prompt_token_ids and generation.prompt == PROMPT
    start = len(expected.prompt_token_ids)
    assert records(generation) == [(start + i, t, "drawn") for i, t in enumerate(expected.token_ids)]
    assert generation.cost.computed + generation.cost.reused == start + 39


@pytest.mark.parametrize("kind", ["greedy", "chain"])
def test_rewind_to_every_position_and_run_again(llm, kind):
    generation = llm.begin(PROMPT, max_tokens=25, ignore_eos=True, **KINDS[kind])
    generation.run()
    tokens, text, start = generation.tokens, generation.text, len(generation.prompt_tokens)
    for length in range(len(generation) - 1, start - 1, -1):
        generation.rewind(to=length)
        assert generation.tokens == tokens[: length - start] and generation.finish_reason is None
        assert generation.text == llm.tokenizer.decode(
            tokens[: length - start], skip_special=True, continues=True
        )
        generation.run()
        assert (generation.tokens, generation.text) == (tokens, text)


def test_peek_shows_and_chooses_nothing(llm):
    generation = llm.begin(PROMPT, temperature=1.0, seed=3)
    step = generation.peek()
    assert generation.tokens == [] and step.token_id is None and generation.peek() is step
    exact = logits_after(llm, generation.prompt_tokens)
    assert np.array_equal(step.logits, exact)
    p = np.exp(exact.astype(np.float64) - exact.max())
    p /= p.sum()
    assert step.entropy == pytest.approx(-(p * np.log(p)).sum())
    top = step.top(5)
    assert [c.token_id for c in top] == np.argsort(-exact, kind="stable")[:5].tolist()
    assert [c.probability for c in top] == pytest.approx(np.sort(p)[::-1][:5].tolist())
    assert step.probability(top[2].token_id) == top[2].probability
    assert step.probability(top[2].text) == top[2].probability or len(top[2].text) != 1
    chosen = step.choose()
    assert chosen is step and generation.tokens == [step.token_id]
    assert step.token_id == llm.generate(PROMPT, max_tokens=1, temperature=1.0, seed=3).token_ids[0]
    assert step.record.logprob == pytest.approx(np.log(p[step.token_id]))
    with pytest.raises(UsageError, match="has left this step"):
        step.choose()


def test_processed_probabilities(llm):
    step = llm.begin(PROMPT, temperature=0.5, top_k=3, seed=1).peek()
    found = [c.processed_probability for c in step.top(5)]
    assert sum(found[:3]) == pytest.approx(1) and found[3:] == [0, 0]
    weights = [c.probability**2 for c in step.top(3)]
    assert found[:3] == pytest.approx([w / sum(weights) for w in weights])


def test_force_and_changed_logits(llm):
    generation = llm.begin([3, 4, 5], ignore_eos=True)
    generation.force(77)
    assert generation.steps[-1].kind == "forced"
    step = generation.peek()
    step.bias({int(step.logits.argmax()): float("-inf")})
    second = step.choose().token_id
    assert second == int(np.argsort(-step.logits, kind="stable")[1])
    assert generation.steps[-1].altered
    logits = np.full(320, -np.inf, np.float32)
    logits[9] = 0
    step = generation.peek()
    step.set_logits(logits)
    assert step.choose().token_id == 9
    assert generation.tokens == [77, second, 9]
    assert generation.step().token_id == int(logits_after(llm, [3, 4, 5, 77, second, 9]).argmax())
    with pytest.raises(UsageError, match="shape"):
        generation.peek().set_logits([1.0])
    with pytest.raises(UsageError, match="NaN"):
        generation.peek().set_logits(np.full(320, np.nan))
    with pytest.raises(UsageError, match="tokens here"):
        generation.force("several tokens of text")


def test_forks_are_separate_and_share(llm):
    generation = llm.begin(PROMPT, temperature=1.2, seed=1, ignore_eos=True, cache_salt="forks")
    generation.run(10)
    computed = generation.cost.computed
    twin, other = generation.fork(), generation.fork(seed=9)
    for each in (twin, other, generation):
        each.run(15)
    assert twin.tokens == generation.tokens
    assert other.tokens[:10] == generation.tokens[:10] and other.tokens != generation.tokens
    assert generation.cost.computed == computed + 15
    assert twin.cost.computed == 15 and other.cost.computed == 15
    assert twin.cost.reused == computed
    assert generation.children == [twin, other] and twin.parent is generation
    whole = generation.prompt_tokens + other.tokens
    assert np.array_equal(other.peek().logits, logits_after(llm, whole))
    assert generation.parts_from(twin) == len(generation)
    assert other.parts_from(generation) >= len(generation.prompt_tokens) + 10


def test_n_forks_are_n_samples(llm):
    params = {"temperature": 1.1, "seed": 4, "max_tokens": 20, "ignore_eos": True}
    samples = llm.generate(PROMPT, n=4, **params).outputs
    first = llm.begin(PROMPT, **params)
    first.peek()
    for index, sample in enumerate(samples):
        fork = first.fork(sample_index=index)
        fork.run()
        assert (fork.tokens, fork.text) == (sample.token_ids, sample.text)
        assert llm.begin(PROMPT, sample_index=index, **params).run() == sample.text


def test_edit_and_append_equal_a_fresh_run(llm):
    generation = llm.begin(PROMPT, ignore_eos=True)
    generation.run(12)
    start = len(generation.prompt_tokens)
    ids = generation.prompt_tokens + generation.tokens
    generation.edit(start + 4, 99)
    ids[start + 4] = 99
    assert generation.prompt_tokens + generation.tokens == ids
    assert [r.kind for r in generation.steps] == ["drawn"] * 4 + ["given"] + ["kept"] * 7
    assert np.array_equal(generation.peek().logits, logits_after(llm, ids))
    generation.edit(start + 2, [5, 6, 7])
    ids[start + 2 : start + 3] = [5, 6, 7]
    generation.append([8, 9])
    ids += [8, 9]
    generation.edit(1, [10, 11])
    ids[1:2] = [10, 11]
    assert generation.prompt_tokens == ids[: start + 1] and generation.tokens == ids[start + 1 :]
    assert np.array_equal(generation.peek().logits, logits_after(llm, ids))
    assert generation.step().token_id == int(logits_after(llm, ids).argmax())
    assert [r.position for r in generation.steps] == list(range(start + 1, len(generation)))
    assert all(r.token_id == t for r, t in zip(generation.steps, generation.tokens, strict=True))


def test_append_as_prompt_is_a_prompt(llm):
    """Penalties, limits and text count as in a fresh generation of all these tokens."""
    params = {"presence_penalty": 1.5, "max_tokens": 10, "ignore_eos": True}
    generation = llm.begin(PROMPT, **params)
    generation.run()
    generation.append([7, 8, 9], as_prompt=True)
    assert generation.finish_reason is None and generation.tokens == [] and generation.text == ""
    whole = generation.prompt_tokens
    generation.run()
    expected = llm.generate(whole, **params)
    assert (generation.tokens, generation.text) == (expected.token_ids, expected.text)
    assert len(generation.steps) == 10 and len(generation.records) == 20
    generation.rewind(to=len(whole) - 2)  # back before the second prompt
    assert len(generation.tokens) == 11


def test_text_appended_spells_itself(llm):
    generation = llm.begin(PROMPT)
    for text in (" there", "x", " ", "ünïcode ☃", "\n\n"):
        before = generation.text
        generation.append(text)
        assert generation.text == before + text


@pytest.mark.parametrize("stop_at", [3, 8, 15])
def test_stop_strings_and_what_follows_them(llm, stop_at):
    params = {"temperature": 1.0, "seed": 8, "max_tokens": 30, "ignore_eos": True}
    text = llm.generate(PROMPT, **params).text
    stop = text[stop_at : stop_at + 3]
    expected = llm.generate(PROMPT, stop=[stop], **params)
    generation = llm.begin(PROMPT, stop=[stop], **params)
    assert generation.run() == generation.text == expected.text
    assert (generation.finish_reason, generation.stop_match) == ("stop", stop)
    assert generation.tokens == expected.token_ids
    with pytest.raises(UsageError, match="has ended"):
        generation.step()
    assert generation.run() == "" and list(generation) == []
    generation.rewind(1)
    assert generation.finish_reason is None
    generation.run()
    assert generation.text == expected.text
    generation.configure(stop=())
    assert generation.finish_reason is None
    generation.run()
    assert generation.text == text


def test_end_of_text(llm):
    generation = llm.begin(PROMPT)
    eos = sorted(llm._loaded.eos_ids)[0]
    generation.run(3)
    text = generation.text
    generation.force(eos)
    assert generation.finish_reason == "eos" and generation.text == text
    fork = generation.fork()
    assert fork.finish_reason == "eos"
    assert fork.rewind(1).finish_reason is None and fork.text == text
    assert generation.configure(ignore_eos=True).finish_reason is None
    generation.run(2)
    token = generation.tokens[-1]
    generation.rewind(1).configure(stop_token_ids=[token])
    generation.step()
    assert (generation.finish_reason, generation.stop_match) == ("stop", token)
    assert llm.tokenizer.decode(generation.tokens[:-1], skip_special=True, continues=True) == generation.text


def test_parameters_may_change_between_steps(llm):
    generation = llm.begin(PROMPT, temperature=1.0, seed=1, ignore_eos=True)
    generation.run(5)
    generation.params = SamplingParams(temperature=0.7, top_k=5, ignore_eos=True)
    assert generation.params.seed == 1 and generation.settings["top_k"].value == 5
    generation.run(5)
    ids = generation.prompt_tokens + generation.tokens[:5]
    seeded = {"temperature": 0.7, "top_k": 5, "seed": 1, "ignore_eos": True, "max_tokens": 5}
    assert generation.tokens[5:] == llm.generate(ids, **seeded).token_ids
    step = generation.peek()
    generation.configure(temperature=0.0)
    assert generation.peek() is not step and generation.peek().logits is step.logits
    with pytest.raises(UsageError, match="has left this step"):
        step.choose()
    assert generation.step().token_id == int(step.logits.argmax())


def test_run_until(llm):
    params = {"temperature": 1.0, "seed": 2, "ignore_eos": True, "max_tokens": 30}
    whole = llm.generate(PROMPT, **params)
    generation = llm.begin(PROMPT, **params)
    assert generation.run(0) == "" and generation.tokens == []
    generation.run(4)
    assert generation.tokens == whole.token_ids[:4]
    wanted = whole.token_ids[9]
    generation.run(lambda step: step.token_id == wanted)
    assert generation.tokens[-1] == wanted
    piece = whole.text[-6:-3]
    generation.rewind(to=len(generation.prompt_tokens))
    generation.run(piece)
    assert piece in generation.text
    for wrong in (-1, "", True, 1.5):
        with pytest.raises(UsageError, match="run: expected"):
            generation.run(wrong)


def test_logprobs_of_all_tokens(llm):
    generation = llm.begin(PROMPT, temperature=1.0, seed=2, ignore_eos=True)
    generation.run(8)
    expected = llm.generate(PROMPT, temperature=1.0, seed=2, ignore_eos=True, max_tokens=8, logprobs=0)
    assert generation.logprobs() == [each.logprob for each in expected.logprobs]
    asked = llm.begin(PROMPT, temperature=1.0, seed=2, ignore_eos=True, logprobs=0)
    asked.run(8)
    assert [r.logprob for r in asked.steps] == [each.logprob for each in expected.logprobs]
    assert [r.processed_logprob for r in asked.steps] == [
        each.processed_logprob for each in expected.logprobs
    ]


def test_branches_know_their_places(llm):
    root = llm.begin([1, 2, 3], ignore_eos=True)
    root.run(4)
    a, b = root.fork(), root.fork()
    b.run(2)
    c = b.fork()
    assert list(root.walk()) == [root, a, b, c]
    assert c.branch.forked_at == 9 and c.branch.depth == 2 and c.branch.root.generation is root
    del b
    gc.collect()
    assert root.branch.children[1].generation is None and c.parent in (None, root)
    assert list(root.walk()) == [root, a, c]
    del c
    gc.collect()
    assert root.children == [a]
    chain = root.fork()
    for _ in range(50):
        chain = chain.fork()
    assert chain.branch.depth == 1


def test_dropped_generations_leak_nothing(llm):
    gc.collect()
    llm._open_driver().evaluate([])
    before = llm._loaded.engine.pool.num_used
    for index in range(5):
        generation = llm.begin(PROMPT, cache_salt=f"drop {index}")
        generation.run(3)
        children = [generation.fork() for _ in range(3)]
        children[0].step()
    del generation, children
    gc.collect()
    llm._open_driver().evaluate([])
    assert llm._loaded.engine.pool.num_used == before


def test_salts(llm):
    ids = list(range(100, 150))
    with llm.begin(ids, cache_salt="a") as generation:
        generation.peek()
        assert generation.cost.reused == 0
    assert llm.generate(ids, max_tokens=1, cache_salt="b").counts.reused == 0
    assert llm.generate(ids, max_tokens=1, cache_salt="a").counts.reused == 49
    assert llm.stream(ids, max_tokens=1, cache_salt="a").result is not None
    with pytest.raises(UsageError, match="cache_salt"):
        llm.generate(ids, cache_salt=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.rewind(100), "expected to stay"),
        (lambda g: g.rewind(to=0), "expected to stay"),
        (lambda g: g.rewind(1, to=2), "not both"),
        (lambda g: g.rewind(1.5), "expected an int"),
        (lambda g: g.edit(50, 1), "edit: expected"),
        (lambda g: g.edit(0, 9999), "vocabulary"),
        (lambda g: g.append(""), "at least one"),
        (lambda g: g.append([]), "empty"),
        (lambda g: g.append([9999]), "vocabulary"),
        (lambda g: g.append([1] * 2000), "exceed"),
        (lambda g: g.force(9999), "vocabulary"),
        (lambda g: g.force(True), "token id or its text"),
        (lambda g: g.configure(n=2), "one sample"),
        (lambda g: g.configure(nonsense=2), "nonsense"),
        (lambda g: g.configure(max_tokens=100000), "context"),
        (lambda g: g.fork(temperature=-1), "temperature"),
        (lambda g: g.peek().top(0), "top: expected"),
    ],
)
def test_errors_change_nothing(llm, call, message):
    generation = llm.begin([1, 2, 3])
    generation.run(3)
    before = (generation.tokens, generation.text, generation.params, generation.finish_reason)
    with pytest.raises((UsageError, ContextOverflowError), match=message):
        call(generation)
    assert (generation.tokens, generation.text, generation.params, generation.finish_reason) == before
    generation.run(1)


def test_begin_is_checked(llm):
    for wrong, message in ((["a", "b"], "one prompt"), ([], "empty"), ([99999], "vocabulary")):
        with pytest.raises(UsageError, match=message):
            llm.begin(wrong)
    with pytest.raises(UsageError, match="sample_index"):
        llm.begin("a", sample_index=-1)
    with pytest.raises(ContextOverflowError):
        llm.begin("a", max_tokens=100000)


def test_a_closed_llm_and_a_closed_generation_say_so(tiny_path):
    llm = LLM(tiny_path, backend="reference")
    generation, closed = llm.begin("a"), llm.begin("b")
    generation.step()
    closed.close()
    with pytest.raises(UsageError, match="closed"):
        closed.step()
    llm.close()
    for call in (generation.step, generation.fork, lambda: generation.rewind(1)):
        with pytest.raises(UsageError, match="closed"):
            call()
    assert len(generation.tokens) == 1  # what was read stays readable
