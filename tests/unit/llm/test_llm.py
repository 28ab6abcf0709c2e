"""The front door on tiny random models: what comes out is held against `logits` and against itself."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pellucid import LLM, SamplingParams
from pellucid.errors import ContextOverflowError, ModelNotFoundError, UsageError

PROMPT = [40, 41, 42, 77, 200, 5]


def greedy_by_hand(llm, prompt, count):
    """The argmax of `logits`, one token at a time."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(np.argmax(llm.logits(ids)[-1])))
        if ids[-1] in llm.tokenizer.eos_ids:
            break
    return ids[len(prompt) :]


def log_softmax(row):
    row = row.astype(np.float64)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def idle(llm):
    return not llm._loaded.engine.has_work and not llm._driver._running


# --- what is generated ----------------------------------------------------------------------------------
def test_greedy_is_the_argmax_of_the_logits(llm):
    result = llm.generate(PROMPT, max_tokens=9)
    assert result.token_ids == greedy_by_hand(llm, PROMPT, 9)
    assert result.prompt_token_ids == PROMPT
    assert result.prompt is None
    assert result.finish_reason in ("length", "eos")


def test_logits_are_float32_rows_whatever_the_ids_come_in(llm):
    first = llm.logits(PROMPT)
    assert first.dtype == np.float32
    assert first.shape == (len(PROMPT), llm.tokenizer.vocabulary_size)
    for same in (tuple(PROMPT), np.array(PROMPT), np.array(PROMPT, np.int32)):
        assert np.array_equal(llm.logits(same).view(np.uint32), first.view(np.uint32))
    assert np.array_equal(llm.logits(PROMPT[:3]).view(np.uint32), first[:3].view(np.uint32))


def test_one_prompt_gives_a_result_and_a_list_a_list(llm):
    one = llm.generate(PROMPT, max_tokens=4)
    assert llm.generate(np.array(PROMPT), max_tokens=4).token_ids == one.token_ids
    many = llm.generate([PROMPT, "hello", np.array(PROMPT[:2])], max_tokens=4)
    assert [result.token_ids for result in many] == [
        one.token_ids,
        llm.generate("hello", max_tokens=4).token_ids,
        llm.generate(PROMPT[:2], max_tokens=4).token_ids,
    ]
    assert [result.prompt for result in many] == [None, "hello", None]
    assert llm.generate([PROMPT], max_tokens=4)[0].token_ids == one.token_ids
    assert [r.token_ids for r in llm.generate(np.array([PROMPT, PROMPT]), max_tokens=4)] == [
        one.token_ids
    ] * 2


def test_text_is_what_the_tokens_decode_to(llm):
    result = llm.generate("hello there", max_tokens=20, ignore_eos=True)
    assert result.prompt_token_ids == llm.tokenizer.encode("hello there")
    assert llm.generate(result.prompt_token_ids, max_tokens=20, ignore_eos=True).text == result.text
    assert result.text == llm.tokenizer.decode(result.token_ids, skip_special=True, continues=True)


def test_logprobs_are_those_of_the_logits(llm):
    result = llm.generate(PROMPT, max_tokens=5, logprobs=3, ignore_eos=True)
    rows = llm.logits(PROMPT + result.token_ids)[len(PROMPT) - 1 :]
    assert len(result.logprobs) == 5
    for entry, row, token in zip(result.logprobs, rows, result.token_ids, strict=False):
        exact = log_softmax(row)
        assert entry.token_id == token
        assert entry.logprob == pytest.approx(exact[token], abs=1e-6)
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:3]
        assert [a.token_id for a in entry.top] == best
        assert [a.logprob for a in entry.top] == pytest.approx(exact[best], abs=1e-6)
        assert entry.text.encode() == llm.tokenizer.token_bytes(token)


def test_processed_logprobs_are_those_of_the_choice(llm):
    params = SamplingParams(temperature=0.5, top_k=4, seed=1, logprobs=6, max_tokens=3, ignore_eos=True)
    result = llm.generate(PROMPT, params)
    row = llm.logits(PROMPT)[-1]
    best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:4]
    exact = log_softmax(row[best] / np.float32(0.5))
    first = result.logprobs[0]
    found = {a.token_id: a.logprob for a in first.processed_top if a.logprob > -np.inf}
    assert found == pytest.approx(dict(zip(best, exact, strict=True)), abs=1e-5)
    assert first.processed_logprob == pytest.approx(found[first.token_id])


def test_samples_of_one_prompt(llm):
    params = SamplingParams(temperature=4.0, seed=3, n=3, max_tokens=8, ignore_eos=True)
    result = llm.generate(PROMPT, params)
    assert [sample.index for sample in result.outputs] == [0, 1, 2]
    assert result.token_ids == result.outputs[0].token_ids
    assert len({tuple(sample.token_ids) for sample in result.outputs}) == 3
    assert llm.generate(PROMPT, params.replace(n=1)).token_ids == result.token_ids
    assert result.counts.generated == 24


def test_a_drawn_seed_is_told_and_repeats_the_text(llm):
    one = llm.generate(PROMPT, temperature=1.5, max_tokens=10, ignore_eos=True)
    seed = one.settings["seed"]
    assert seed.origin == "drawn at random"
    again = llm.generate(PROMPT, temperature=1.5, max_tokens=10, ignore_eos=True, seed=seed.value)
    assert again.token_ids == one.token_ids


# --- ends -----------------------------------------------------------------------------------------------
def test_eos_is_in_the_ids_and_not_in_the_text(llm):
    free = llm.generate(PROMPT, max_tokens=3, ignore_eos=True)
    forced = llm.generate(PROMPT, max_tokens=3, logit_bias={1: 1000.0})
    assert free.finish_reason == "length"
    assert (forced.token_ids, forced.text, forced.finish_reason) == ([1], "", "eos")


def test_a_stop_id_is_told(llm):
    free = llm.generate(PROMPT, max_tokens=6, ignore_eos=True)
    wanted = free.token_ids[3]
    cut = free.token_ids.index(wanted) + 1
    stopped = llm.generate(PROMPT, max_tokens=6, ignore_eos=True, stop_token_ids=[wanted])
    assert stopped.token_ids == free.token_ids[:cut]
    assert (stopped.finish_reason, stopped.stop_match) == ("stop", wanted)


def test_stop_strings_cut_the_text_at_their_first_place(llm):
    free = llm.generate(PROMPT, max_tokens=30, ignore_eos=True)
    assert len(free.text) > 8
    for start, length in ((3, 1), (2, 4), (5, 3)):
        stop = free.text[start : start + length]
        stopped = llm.generate(PROMPT, max_tokens=30, ignore_eos=True, stop=["\x00never", stop])
        assert stopped.text == free.text[: free.text.index(stop)]
        assert (stopped.finish_reason, stopped.stop_match) == ("stop", stop)
        assert free.token_ids[: len(stopped.token_ids)] == stopped.token_ids
        assert idle(llm)
        with llm.stream(PROMPT, max_tokens=30, ignore_eos=True, stop=stop) as stream:
            chunks = list(stream)
        assert "".join(chunk.text for chunk in chunks) == stopped.text
        assert (chunks[-1].finish_reason, chunks[-1].stop_match) == ("stop", stop)
        assert [chunk.token_id for chunk in chunks] == stopped.token_ids


def test_the_context_ends_a_text_and_says_so(fresh):
    result = fresh.generate(PROMPT, ignore_eos=True)
    assert result.finish_reason == "context"
    assert len(PROMPT) + len(result.token_ids) == fresh.context_length == 64


def test_what_the_context_cannot_hold_is_an_error_that_says_by_how_much(fresh):
    with pytest.raises(ContextOverflowError, match="70 tokens, 6 more than the context of 64"):
        fresh.generate([5] * 70)
    with pytest.raises(ContextOverflowError, match="64 tokens; with one token to generate that is 1 more"):
        fresh.generate([5] * 64)
    with pytest.raises(ContextOverflowError, match="with max_tokens 60 that is 6 more .* lower max_tokens"):
        fresh.generate([5] * 10, max_tokens=60)
    with pytest.raises(ContextOverflowError, match=r"raise context_length \(this model has up to 1024\)"):
        fresh.logits([5] * 65)
    assert fresh.logits([5] * 64).shape[0] == 64
    assert fresh.generate([5] * 10, max_tokens=54, ignore_eos=True).finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ([], {}, "empty"),
        ("", {}, "empty"),
        ([320], {}, "token id 320 at position 0 .* 0 to 319"),
        ([5, -1], {}, "token id -1 at position 1"),
        (["a", []], {}, "empty"),
        ([5], {"temprature": 1}, "did you mean temperature"),
        ([5], {"banned_ids": [320]}, "320"),
        ([5], {"params": {"n": 2}}, "expected SamplingParams"),
        ([[5], [6]], {"params": [SamplingParams()]}, "2 prompts, but 1"),
        (7, {}, "expected text, token ids"),
    ],
)
def test_usage_errors_leave_nothing_behind(llm, prompt, options, words):
    with pytest.raises(UsageError, match=words) as caught:
        llm.generate(prompt, **options)
    assert "\n" not in str(caught.value)
    assert idle(llm)


def test_a_request_without_a_possible_token_says_so_and_others_live(llm):
    from pellucid import PellucidError

    with pytest.raises(PellucidError, match="no token"):
        llm.generate(PROMPT, max_tokens=2, allowed_ids=[7], banned_ids=[7])
    with pytest.raises(PellucidError, match="no token"):
        list(llm.stream(PROMPT, max_tokens=2, allowed_ids=[7], banned_ids=[7]))
    assert idle(llm)
    assert llm.generate(PROMPT, max_tokens=2).token_ids == greedy_by_hand(llm, PROMPT, 2)


# --- streams --------------------------------------------------------------------------------------------
def test_a_stream_is_generate_in_pieces(llm):
    whole = llm.generate("hello", max_tokens=12, ignore_eos=True, logprobs=1)
    stream = llm.stream("hello", max_tokens=12, ignore_eos=True, logprobs=1)
    chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == whole.text == stream.result.text
    assert [chunk.token_id for chunk in chunks] == whole.token_ids
    assert [chunk.logprobs for chunk in chunks] == whole.logprobs
    assert [chunk.position for chunk in chunks] == list(range(5, 17)) or len(whole.prompt_token_ids) != 5
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * 11
    assert chunks[-1].finish_reason == "length"
    assert stream.result.outputs == whole.outputs
    assert stream.settings["max_tokens"].value == 12


def test_streams_can_be_read_in_turns(llm):
    alone = [llm.generate(prompt, max_tokens=6, ignore_eos=True).token_ids for prompt in (PROMPT, PROMPT[:3])]
    one = llm.stream(PROMPT, max_tokens=6, ignore_eos=True)
    two = llm.stream(PROMPT[:3], max_tokens=6, ignore_eos=True)
    found = [[], []]
    for a, b in zip(one, two, strict=True):
        found[0].append(a.token_id)
        found[1].append(b.token_id)
    assert found == alone


def test_closing_a_stream_aborts_and_keeps_the_text(llm):
    whole = llm.generate(PROMPT, max_tokens=9, ignore_eos=True)
    with llm.stream(PROMPT, max_tokens=9, ignore_eos=True) as stream:
        first = [next(stream).token_id for _ in range(3)]
    assert idle(llm)
    assert first == whole.token_ids[:3] == stream.result.token_ids
    assert stream.result.finish_reason == "abort"
    assert whole.text.startswith(stream.result.text.rstrip("�"))
    assert list(stream) == []


def test_a_dropped_stream_ends_too(llm):
    stream = llm.stream(PROMPT, max_tokens=9, ignore_eos=True)
    next(stream)
    del stream
    llm.generate(PROMPT, max_tokens=1)
    assert idle(llm)


def test_stream_checks_at_once(llm):
    with pytest.raises(UsageError):
        llm.stream([320])
    with pytest.raises(UsageError, match="one prompt"):
        llm.stream(["a", "b"])


# --- interrupts and threads -----------------------------------------------------------------------------
def interrupt_at(llm, monkeypatch, step):
    """SIGINT in the middle of the engine's `step`-th pass."""
    import signal

    engine, taken = llm._loaded.engine, []
    original = engine._forward

    def forward(*args, **kwargs):
        taken.append(1)
        if len(taken) == step:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(engine, "_forward", forward)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_ctrl_c_in_generate_leaves_the_llm_usable(llm, monkeypatch, step):
    expected = llm.generate([PROMPT, PROMPT[:2]], max_tokens=9, ignore_eos=True)
    interrupt_at(llm, monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        llm.generate([PROMPT, PROMPT[:2]], max_tokens=9, ignore_eos=True)
    assert idle(llm)
    again = llm.generate([PROMPT, PROMPT[:2]], max_tokens=9, ignore_eos=True)
    assert [r.outputs for r in again] == [r.outputs for r in expected]


def test_ctrl_c_in_a_stream_keeps_the_text_so_far(llm, monkeypatch):
    whole = llm.generate(PROMPT, max_tokens=9, ignore_eos=True)
    stream = llm.stream(PROMPT, max_tokens=9, ignore_eos=True)
    next(stream)
    interrupt_at(llm, monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert idle(llm)
    found = stream.result
    assert found.finish_reason == "abort"
    assert found.token_ids == whole.token_ids[: len(found.token_ids)]
    assert len(found.token_ids) == 3  # the pass that was interrupted was finished first


def test_threads_share_one_llm(llm):
    prompts = [PROMPT[: 1 + i] for i in range(6)]
    alone = [llm.generate(prompt, max_tokens=8, ignore_eos=True).token_ids for prompt in prompts]
    found = [None] * len(prompts)

    def work(i):
        if i % 2:
            found[i] = [chunk.token_id for chunk in llm.stream(prompts[i], max_tokens=8, ignore_eos=True)]
        else:
            found[i] = llm.generate(prompts[i], max_tokens=8, ignore_eos=True).token_ids

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone
    assert idle(llm)


# --- what is told ---------------------------------------------------------------------------------------
def test_counts_and_timings(fresh):
    one = fresh.generate(PROMPT, max_tokens=5, ignore_eos=True)
    assert (one.counts.prompt, one.counts.computed, one.counts.reused, one.counts.generated) == (6, 6, 0, 5)
    two = fresh.generate(PROMPT, max_tokens=5, ignore_eos=True)
    assert two.counts.reused + two.counts.computed == 6
    assert two.counts.reused > 0
    assert two.outputs == one.outputs
    timings = one.timings
    assert 0 < timings.time_to_first_token < timings.total
    assert timings.prefill_tokens_per_second == pytest.approx(6 / timings.time_to_first_token)
    rest = timings.total - timings.time_to_first_token
    assert timings.decode_tokens_per_second == pytest.approx(4 / rest)


def test_settings_tell_value_and_origin(tiny_path):
    with LLM(tiny_path, backend="reference", num_threads=1, context_length=32) as llm:
        settings = llm.generate(PROMPT, max_tokens=1, top_k=2).settings
        for name, value, origin in (
            ("num_threads", 1, "caller"),
            ("context_length", 32, "caller"),
            ("prefill_chunk", 128, "default"),
            ("kv_format", "f32", "default"),
            ("backend", "reference", "caller"),
            ("max_tokens", 1, "caller"),
            ("top_k", 2, "caller"),
            ("temperature", 0.0, "default"),
            ("eos_ids", frozenset({1}), "model file"),
        ):
            assert (settings[name].value, settings[name].origin) == (value, origin), name
        assert llm.settings["model"].value == str(tiny_path)
        assert all(setting in settings.values() for setting in llm.settings.values())


def test_quantised_models_keep_kv_in_f16(tmp_path):
    from tiny_checkpoints import make

    with LLM(make(tmp_path, "llama", "gguf", "Q8_0"), backend="reference") as llm:
        assert llm.settings["kv_format"].value == "i16"
        assert llm.info.kv_format == "i16"


def test_info_and_repr(llm):
    info = llm.info
    assert (info.architecture, info.context_length, info.vocabulary_size) == ("llama", 1024, 320)
    assert info.num_parameters == sum(share.num_parameters for share in info.formats.values())
    assert info.eos_ids == (1,)
    assert "llama" in repr(llm)
    assert "\n" not in repr(llm)
    layers = info.layers
    assert info.kv_bytes(10, "f32") == 10 * 4 * sum(
        2 * layer.num_kv_heads * layer.head_dim for layer in layers
    )


def test_inspecting_tells_the_same_without_loading(llm, tiny_path):
    from pellucid import inspect_model

    assert inspect_model(tiny_path) == llm.info


# --- opening and closing --------------------------------------------------------------------------------
def test_a_closed_llm_says_so(tiny_path):
    llm = LLM(tiny_path, backend="reference")
    stream = llm.stream(PROMPT)
    next(stream)
    llm.close()
    llm.close()
    assert repr(llm) == "LLM(closed)"
    assert stream.result.finish_reason == "abort"
    for call in (lambda: llm.generate(PROMPT), lambda: llm.logits(PROMPT), lambda: llm.tokenizer):
        with pytest.raises(UsageError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_threads": 0}, "num_threads"),
        ({"num_threads": 1.5}, "num_threads"),
        ({"num_threads": True}, "num_threads"),
        ({"prefill_chunk": 0}, "prefill_chunk"),
        ({"prefill_chunk": "7"}, "prefill_chunk"),
        ({"context_length": 1025}, "1024"),
        ({"context_length": -1}, "context_length"),
        ({"kv_format": "q8"}, "kv_format"),
        ({"kv_memory": 1}, "kv_memory"),
        ({"backend": "cuda"}, "backend"),
        ({"max_sequences": 0}, "max_sequences"),
        ({"prefix_caching": "no"}, "prefix_caching"),
    ],
)
def test_wrong_options_are_usage_errors(tiny_path, options, words):
    with pytest.raises(UsageError, match=words):
        LLM(tiny_path, **{"backend": "reference", **options})


def test_a_model_that_is_not_there():
    with pytest.raises(ModelNotFoundError):
        LLM("/nowhere/model.gguf")
