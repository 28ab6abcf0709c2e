"""Deadlines and full contexts, as a caller meets them."""

from __future__ import annotations

import pytest

from pellucid import ContextOverflowError, Drop, UsageError


class Clock:
    """Says how many passes there were: deadlines become exact."""

    def __init__(self, llm, monkeypatch):
        engine, self.now = llm._loaded.engine, 0.0
        step = engine.step

        def stepped():
            self.now += 1
            return step()

        monkeypatch.setattr(engine, "step", stepped)
        monkeypatch.setattr("pellucid.serving.driver.perf_counter", lambda: self.now)
        monkeypatch.setattr("pellucid.serving.running.perf_counter", lambda: self.now)


def idle(llm):
    engine = llm._loaded.engine
    return not engine.has_work and engine.pool.num_used == 0 and not llm._driver._running


@pytest.mark.parametrize("samples", [1, 3])
def test_a_deadline_ends_a_request_and_keeps_its_text(llm, monkeypatch, samples):
    options = {"max_tokens": 20, "ignore_eos": True, "n": samples, "temperature": 1.0, "seed": 4}
    whole = llm.generate([5, 6, 7], **options)
    Clock(llm, monkeypatch)
    late = llm.generate([5, 6, 7], deadline=6.0, **options)
    for sample, full in zip(late.outputs, whole.outputs, strict=True):
        assert sample.finish_reason == "deadline"
        assert sample.token_ids == full.token_ids[:6] and full.text.startswith(sample.text.rstrip("�"))
    assert late.settings["deadline"].value == 6.0
    in_time = llm.generate([5, 6, 7], deadline=1000.0, **options)
    assert [s.token_ids for s in in_time.outputs] == [s.token_ids for s in whole.outputs]
    assert idle(llm)


def test_a_deadline_holds_while_a_request_waits_in_line(tiny_path, monkeypatch):
    from pellucid import LLM, SamplingParams

    with LLM(tiny_path, backend="reference", max_sequences=1) as llm:
        Clock(llm, monkeypatch)
        first = SamplingParams(max_tokens=30, ignore_eos=True)
        second = first.replace(deadline=10.0)
        results = llm.generate([[1, 2], [3, 4]], [first, second])
        assert [r.finish_reason for r in results] == ["length", "deadline"]
        assert results[1].token_ids == [] and results[1].text == ""
        assert results[1].timings.time_to_first_token is None
        assert idle(llm)


def test_a_stream_ends_at_its_deadline(llm, monkeypatch):
    Clock(llm, monkeypatch)
    with llm.stream([5, 6], deadline=3.0, max_tokens=50, ignore_eos=True) as stream:
        chunks = list(stream)
    assert [c.finish_reason for c in chunks] == [None, None, None, "deadline"]
    assert chunks[-1].token_id is None
    assert stream.result.finish_reason == "deadline" and len(stream.result.token_ids) == 3


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), "5", True])
def test_what_is_no_deadline(llm, deadline):
    with pytest.raises(UsageError, match="deadline"):
        llm.generate([1], deadline=deadline)


def test_stop_fills_the_context(fresh):
    assert fresh.context_length == 64
    result = fresh.generate([5] * 60, max_tokens=500, overflow="stop", ignore_eos=True)
    assert (len(result.token_ids), result.finish_reason) == (4, "context")
    with pytest.raises(ContextOverflowError, match="max_tokens 500"):
        fresh.generate([5] * 60, max_tokens=500)
    with pytest.raises(ContextOverflowError, match="64 tokens"):
        fresh.generate([5] * 64, max_tokens=500, overflow="stop")


def test_slide_goes_on_and_every_drop_is_in_the_result(fresh):
    options = {"overflow": "slide", "slide_keep": 4, "slide_drop": 20, "max_tokens": 70, "ignore_eos": True}
    prompt = list(range(5, 35))
    with fresh.stream(prompt, **options) as stream:
        chunks = list(stream)
    sample = stream.result.outputs[0]
    assert sample.drops == (Drop(34, 4, 20), Drop(54, 4, 20))
    assert [c.drop for c in chunks if c.drop] == list(sample.drops)
    assert sample.finish_reason == "length" and len(sample.token_ids) == 70
    # The tokens that were left, given as a prompt, go on the same way.
    whole = prompt + sample.token_ids[:34]
    again = fresh.generate(whole[:4] + whole[24:], max_tokens=20, ignore_eos=True)
    assert again.token_ids == sample.token_ids[34:54]
    assert "40 tokens dropped" in repr(stream.result)
    assert stream.result.to_dict()["outputs"][0]["drops"][0] == {"after": 34, "start": 4, "count": 20}


def test_slide_cuts_a_prompt_that_is_too_long(fresh):
    prompt = [5 + i % 200 for i in range(100)]
    options = {"overflow": "slide", "slide_keep": 10, "max_tokens": 6, "ignore_eos": True}
    result = fresh.generate(prompt, n=2, temperature=1.0, seed=1, **options)
    drop = Drop(0, 10, 54)  # twice half of 64 - 10
    assert all(sample.drops == (drop,) for sample in result.outputs)
    assert result.prompt_token_ids == prompt and result.counts.prompt == 46
    left = prompt[:10] + prompt[64:]
    again = fresh.generate(left, n=2, temperature=1.0, seed=1, max_tokens=6, ignore_eos=True)
    assert [s.token_ids for s in again.outputs] == [s.token_ids for s in result.outputs]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overflow": "wrap"}, "expected one of error or stop or slide, got 'wrap'"),
        ({"overflow": None}, "overflow"),
        ({"overflow": "slide"}, "needs max_tokens"),
        ({"overflow": "slide", "max_tokens": 5, "slide_keep": 63}, "leave nothing of the context of 64"),
        ({"slide_keep": 3}, "needs overflow='slide'"),
        ({"slide_drop": 3, "overflow": "stop"}, "needs overflow='slide'"),
    ],
)
def test_what_contradicts_itself(fresh, options, words):
    with pytest.raises(UsageError, match=words):
        fresh.generate([1, 2], **options)
    assert idle(fresh)


@pytest.mark.parametrize("options", [{"overflow": "slide", "max_tokens": 3}, {"deadline": 3.0}])
def test_a_generation_driven_by_hand_refuses_what_it_would_not_do(fresh, options):
    with pytest.raises(UsageError, match="driven by hand"):
        fresh.begin([1, 2], **options)
