"""AsyncLLM: the same bits as LLM, cancellation in every phase, bounds, deadlines, loops, threads, shutdown."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading

import numpy as np
import pytest

from pellucid import (
    LLM,
    AsyncLLM,
    Capture,
    PellucidError,
    QueueFullError,
    Recorder,
    RunFileError,
    SamplingParams,
    Scale,
    UsageError,
    read_run,
)
from pellucid.glass.frames import FrameWriter
from pellucid.serving.worker import Mailbox


@pytest.fixture
def llm(tiny_path):
    with LLM(tiny_path, backend="reference", max_sequences=8, prefill_chunk=16, context_length=256) as loaded:
        yield loaded


def idle(llm):
    engine = llm._loaded.engine
    return engine.pool.num_used == 0 and not engine.has_work and not engine._live and not llm._driver._running


async def settled(llm):
    """Once the worker has taken notice of what was cancelled; `run` ends the wait for one that never does."""
    while not idle(llm):
        await asyncio.sleep(0.005)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 600))  # for one that hangs, on however slow a machine


PARAMS = {"max_tokens": 12, "temperature": 1.0, "seed": 7, "ignore_eos": True}


def test_results_are_those_of_llm(llm):
    async def main():
        async with AsyncLLM(llm) as allm:
            return await asyncio.gather(*(allm.generate([5, i], n=1 + i % 3, **PARAMS) for i in range(40)))

    results = run(main())
    for i, result in enumerate(results):
        alone = llm.generate([5, i], n=1 + i % 3, **PARAMS)
        assert [s.token_ids for s in result.outputs] == [s.token_ids for s in alone.outputs]
    assert idle(llm)


def test_a_stream_is_generate_in_pieces(llm):
    async def main():
        async with AsyncLLM(llm) as allm:
            async with allm.stream("Hello", **PARAMS, n=2) as stream:
                chunks = [chunk async for chunk in stream]
            return chunks, stream.result

    chunks, result = run(main())
    whole = llm.generate("Hello", **PARAMS, n=2)
    for sample in whole.outputs:
        mine = [c for c in chunks if c.sample_index == sample.index]
        assert "".join(c.text for c in mine) == sample.text and mine[-1].finish_reason == "length"
    assert [s.token_ids for s in result.outputs] == [s.token_ids for s in whole.outputs]


def test_two_thousand_requests_of_which_a_third_is_cancelled_in_every_phase(llm):
    """Real cancellation of tasks: by cancel, asyncio.timeout, a left stream and a dropped one."""
    rng = random.Random(11)
    heads = [[rng.randrange(2, 300) for _ in range(rng.randrange(1, 60))] for _ in range(6)]
    kinds = {i: rng.choice(["cancel", "timeout", "leave", "drop"]) for i in range(2000) if rng.random() < 0.3}
    prompts = [[*rng.choice(heads), rng.randrange(2, 300)] for _ in range(2000)]
    params = [
        SamplingParams(max_tokens=1 + i % 9, temperature=i % 2, seed=i % 50, n=1 + (i % 13 == 0))
        for i in range(2000)
    ]

    async def one(allm, gate, i):
        async with gate:
            kind, passes = kinds.get(i), rng.randrange(12)
            if kind is None:
                return await allm.generate(prompts[i], params[i])
            if kind in ("leave", "drop"):
                stream = allm.stream(prompts[i], params[i])
                async for _ in stream:
                    passes -= 1
                    if passes <= 0:
                        break
                if kind == "leave":
                    await stream.aclose()
                return None
            try:
                if kind == "timeout":
                    async with asyncio.timeout(passes * 1e-3):
                        await allm.generate(prompts[i], params[i])
                else:
                    task = asyncio.ensure_future(allm.generate(prompts[i], params[i]))
                    for _ in range(passes):
                        await asyncio.sleep(0)
                    task.cancel()
                    await task
            except (TimeoutError, asyncio.CancelledError):
                return None
            return None

    async def main():
        async with AsyncLLM(llm, max_waiting=120) as allm:
            gate = asyncio.Semaphore(60)
            results = await asyncio.gather(*(one(allm, gate, i) for i in range(2000)))
            await settled(llm)
            assert allm.num_requests == 0
            return results

    results = run(main())
    survivors = [i for i in range(2000) if i not in kinds]
    assert all(results[i] is not None for i in survivors)
    for i in rng.sample(survivors, 120):
        alone = llm.generate(prompts[i], params[i])
        assert [s.token_ids for s in results[i].outputs] == [s.token_ids for s in alone.outputs]
    assert idle(llm)


def test_cancelled_blocks_are_free_before_the_next_pass(llm, monkeypatch):
    """The ninth pass waits for the cancellation, so that it comes amid a pass, whoever of the threads is faster."""
    engine, driver = llm._loaded.engine, llm._driver
    step, abort, drop = engine.step, engine.abort, driver.drop
    steps, dropped, aborted = [0], [], []
    entered, reached, noted = threading.Event(), threading.Event(), threading.Event()

    def counted():
        steps[0] += 1
        if steps[0] == 1:
            assert entered.wait(600)
        if steps[0] == 9:
            reached.set()
            assert noted.wait(600)
        return step()

    def abort_noted(request_id):
        held = engine.pool.num_used
        abort(request_id)
        aborted.append((steps[0], held - engine.pool.num_used))

    def drop_noted(request):
        dropped.append(steps[0])
        drop(request)
        noted.set()

    monkeypatch.setattr(engine, "step", counted)
    monkeypatch.setattr(engine, "abort", abort_noted)
    monkeypatch.setattr(driver, "drop", drop_noted)

    async def main():
        async with AsyncLLM(llm) as allm:
            other = asyncio.ensure_future(allm.generate([9], max_tokens=250, ignore_eos=True))
            task = asyncio.ensure_future(allm.generate([5] * 100, max_tokens=100, ignore_eos=True))
            await asyncio.sleep(0)  # both are asked for
            entered.set()
            assert await asyncio.to_thread(reached.wait, 600)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await other

    assert len(run(main()).token_ids) == 250
    (at,), ((then, freed),) = dropped, aborted
    assert (at, then) == (9, 9)  # the tenth pass had not begun
    assert freed >= 100 // 32
    assert idle(llm)


def test_a_full_queue_refuses_and_names_the_numbers(llm, monkeypatch):
    all_asked = threading.Event()
    step = llm._open_driver().step

    def step_when_all_asked():  # else a quick one could be done, and give its place back, before the last asks
        assert all_asked.wait(600)
        step()

    monkeypatch.setattr(llm._driver, "step", step_when_all_asked)

    async def main():
        async with AsyncLLM(llm, max_waiting=2) as allm:
            tasks = [asyncio.ensure_future(allm.generate([i], **PARAMS)) for i in range(30)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            all_asked.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            again = await allm.generate([1], **PARAMS)
            with pytest.raises(QueueFullError, match="11 samples asked for, 0 of 10 places"):
                await allm.generate([1], n=11)
            with pytest.raises(UsageError, match="no sampling parameter"):
                await allm.generate([1], nonsense=3)
            assert allm.num_requests == 0
            return results, again

    results, again = run(main())
    refused = [r for r in results if isinstance(r, QueueFullError)]
    assert len(refused) == 20 and len(again.token_ids) == 12
    assert "10 of 10 places taken (max_sequences 8 + max_waiting 2)" in str(refused[0])


def test_an_error_reaches_its_own_caller_only(llm):
    async def main():
        async with AsyncLLM(llm) as allm:
            good = [allm.generate([i], **PARAMS) for i in range(5)]
            bad = allm.generate([3], allowed_ids=[1], min_tokens=1, max_tokens=2)
            unknown = allm.generate([99999])
            return await asyncio.gather(*good, bad, unknown, return_exceptions=True)

    *good, bad, unknown = run(main())
    assert all(len(r.token_ids) == 12 for r in good)
    assert isinstance(bad, PellucidError) and "no token is left" in str(bad)
    assert isinstance(unknown, UsageError)
    assert idle(llm)


def test_a_pass_that_fails_ends_those_that_run_and_serves_the_next(llm, monkeypatch):
    engine, real = llm._loaded.engine, llm._loaded.engine.step
    broken = [True]

    def step():
        if broken[0] and engine._live:
            broken[0] = False
            raise MemoryError("no room")
        return real()

    monkeypatch.setattr(engine, "step", step)

    async def main():
        async with AsyncLLM(llm) as allm:
            with pytest.raises(MemoryError):
                await allm.generate([1], **PARAMS)
            return await allm.generate([1], **PARAMS)

    assert len(run(main()).token_ids) == 12
    assert idle(llm)


def test_deadlines(llm, monkeypatch):
    """The clock stands until the stream is paused, so that its deadline comes while nobody reads it."""
    now, ticks = [0.0], itertools.count(1)  # a nanosecond for each look: no two times are the same
    for place in ("driver", "running", "worker"):
        monkeypatch.setattr(f"pellucid.serving.{place}.perf_counter", lambda: now[0] + next(ticks) * 1e-9)

    async def main():
        async with AsyncLLM(llm, max_unread=2) as allm:
            stream = allm.stream([1], max_tokens=250, ignore_eos=True, deadline=0.2)
            await stream.__anext__()
            paused = stream._running.request
            while not paused.paused:
                await asyncio.sleep(0.001)
            assert not paused.done
            now[0] = 0.3
            while not paused.done:  # it ends while it is paused, although nobody wakes the thread
                await asyncio.sleep(0.001)
            late = await allm.generate([1], max_tokens=250, ignore_eos=True, deadline=1e-12)
            return late, [chunk async for chunk in stream]

    late, rest = run(main())
    assert late.finish_reason == "deadline" and rest[-1].finish_reason == "deadline"
    assert len(rest) <= 4  # it was paused
    assert idle(llm)


def test_a_slow_reader_is_waited_for_and_gets_every_chunk(llm):
    async def main():
        async with AsyncLLM(llm, max_unread=4) as allm:
            most = 0
            chunks = []
            async for chunk in (
                stream := allm.stream([5], max_tokens=60, ignore_eos=True, n=2, temperature=1, seed=3)
            ):
                chunks.append(chunk)
                if len(chunks) % 7 == 0:
                    await allm.generate([6], max_tokens=4)  # others go on
                most = max(most, len(stream._running.request.chunks))
            return chunks, most

    chunks, most = run(main())
    assert most <= 4 + 2  # the last pass may bring one for each sample
    whole = llm.generate([5], max_tokens=60, ignore_eos=True, n=2, temperature=1, seed=3)
    for sample in whole.outputs:
        ids = [c.token_id for c in chunks if c.sample_index == sample.index]
        assert ids == sample.token_ids


def test_a_long_prompt_does_not_stall_a_stream(llm, monkeypatch):
    """Between two chunks of a stream there is one pass, whatever prompts are computed meanwhile."""
    engine, real = llm._loaded.engine, llm._loaded.engine.step
    seen, all_asked = [], threading.Event()

    def step():
        if len(seen) == 3:  # the stream has begun; it must not end before the prompts are there
            assert all_asked.wait(600)
        events = real()
        seen.append({event.token_id is not None and event.request_id for event in events})
        return events

    monkeypatch.setattr(engine, "step", step)

    async def main():
        async with AsyncLLM(llm) as allm:
            stream = allm.stream([5], max_tokens=100, ignore_eos=True)
            await stream.__anext__()
            long = [asyncio.ensure_future(allm.generate([7 + i] * 200, max_tokens=2)) for i in range(3)]
            first = stream._running.request.request_id
            await asyncio.sleep(0)
            all_asked.set()
            async for _ in stream:
                pass
            await asyncio.gather(*long)
            return first

    first = run(main())
    at = [i for i, ids in enumerate(seen) if first in ids]
    assert len(at) == 100 and at == list(range(at[0], at[0] + 100))
    assert sum(len(ids - {first, False}) for ids in seen[: at[-1]]) >= 3  # the prompts were done beside it


def test_several_loops_threads_and_plain_calls_share_one_engine(llm):
    allm = AsyncLLM(llm)
    results = {}

    def worker(number):
        async def main():
            return await asyncio.gather(*(allm.generate([number, i], **PARAMS) for i in range(6)))

        results[number] = asyncio.run(main())

    def plain():
        results["plain"] = [llm.generate([77, i], **PARAMS) for i in range(4)]

    threads = [threading.Thread(target=worker, args=(n,)) for n in (10, 20, 30)]
    threads.append(threading.Thread(target=plain))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert not any(thread.is_alive() for thread in threads)
    run(allm.close())
    for number, some in results.items():
        for i, result in enumerate(some):
            first = 77 if number == "plain" else number
            assert result.token_ids == llm.generate([first, i], **PARAMS).token_ids
    assert idle(llm)


def test_a_closed_loop_leaves_nothing_running(llm):
    allm = AsyncLLM(llm)

    async def main():
        stream = allm.stream([5], max_tokens=200, ignore_eos=True)
        await stream.__anext__()
        return stream

    stream = asyncio.run(main())
    run(settled(llm))
    assert len(stream.result.token_ids) >= 1
    run(allm.close())


def test_a_mailbox_knows_a_closed_loop_also_after_a_call_that_was_not_taken():
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    assert mailbox.post(lambda: None) and mailbox.post(lambda: None)
    loop.close()
    assert not mailbox.post(lambda: None)


def test_a_task_group_that_breaks_ends_its_requests(llm):
    async def main():
        async with AsyncLLM(llm) as allm:
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    for i in range(5):
                        group.create_task(allm.generate([i], max_tokens=200, ignore_eos=True))
                    group.create_task(allm.generate([99999]))
            await settled(llm)

    run(main())


def test_the_thread_sleeps_while_there_is_nothing_to_do(llm):
    async def main():
        async with AsyncLLM(llm) as allm:
            await allm.generate([1], max_tokens=2)
            driver, steps = allm._worker._driver, [0]
            real = driver.step
            driver.step = lambda: steps.__setitem__(0, steps[0] + 1) or real()
            await asyncio.sleep(0.3)
            return steps[0]

    assert run(main()) <= 1


@pytest.mark.parametrize("drain", [True, False])
def test_close_aborts_or_drains(llm, monkeypatch, drain):
    """Amid the tenth pass, with all of them asked for and none at its end."""
    engine, real = llm._loaded.engine, llm._loaded.engine.step
    steps, reached, stopped = [], threading.Event(), threading.Event()

    def step():
        steps.append(None)
        if len(steps) == 10:
            reached.set()
            assert stopped.wait(600)
        return real()

    monkeypatch.setattr(engine, "step", step)

    async def main():
        allm = AsyncLLM(llm)
        tasks = [asyncio.ensure_future(allm.generate([i], max_tokens=50, ignore_eos=True)) for i in range(12)]
        assert await asyncio.to_thread(reached.wait, 600)
        closing = asyncio.ensure_future(allm.close(drain=drain))
        await asyncio.sleep(0)  # the thread has been told
        stopped.set()
        await closing
        with pytest.raises(UsageError, match="closed"):
            await allm.generate([1])
        return [result.finish_reason for result in await asyncio.gather(*tasks)]

    assert set(run(main())) == {"length" if drain else "abort"}
    assert idle(llm)


def test_it_loads_and_closes_what_it_was_told_to_load(tiny_path):
    async def main():
        async with AsyncLLM(tiny_path, backend="reference", max_sequences=2) as allm:
            assert "max_sequences" in allm.llm.settings
            result = await allm.generate("a", max_tokens=3, ignore_eos=True)
        with pytest.raises(UsageError, match="closed"):
            allm.llm.generate("a")
        return result

    assert len(run(main()).token_ids) == 3


def test_a_dropped_async_llm_ends_its_thread(llm):
    async def main():
        allm = AsyncLLM(llm)
        await allm.generate([1], max_tokens=1)
        return allm._worker._thread

    thread = run(main())
    thread.join(300)
    assert not thread.is_alive()


def test_misuse(llm):
    with pytest.raises(UsageError, match="max_waiting"):
        AsyncLLM(llm, max_waiting=-1)
    with pytest.raises(UsageError, match="max_unread"):
        AsyncLLM(llm, max_unread=0)
    with pytest.raises(UsageError, match="num_threads"):
        AsyncLLM(llm, num_threads=2)

    async def main():
        async with AsyncLLM(llm) as allm:
            with pytest.raises(UsageError, match="one prompt"):
                await allm.generate(["a", "b"])
            with pytest.raises(UsageError, match="not read yet"):
                allm.stream("a").result  # noqa: B018
            async with allm.stream([5], max_tokens=200, ignore_eos=True) as stream:
                reader = asyncio.ensure_future(stream.__anext__())
                await asyncio.sleep(0)
                if not reader.done():
                    with pytest.raises(UsageError, match="another task"):
                        await stream.__anext__()
                await reader

    run(main())
    assert idle(llm)


def test_what_is_looked_at_and_recorded_is_that_of_llm(llm, tmp_path):
    """`record`, `capture`, `interventions`: of calls and streams that share their passes, one of them cancelled."""
    capture, changes = Capture("resid_post", layers=[0]), [Scale(factor=0.0, layer=0)]
    recorder = Recorder(tmp_path / "all")

    async def main():
        async with AsyncLLM(llm) as allm:
            one = allm.generate([5, 6], record=tmp_path / "one", capture=capture, **PARAMS)
            other = allm.generate([5, 7], record=recorder, interventions=changes, **PARAMS)
            results = await asyncio.gather(one, other)
            async with allm.stream([5, 8], record=recorder, capture=capture, **PARAMS) as stream:
                await stream.__anext__()
            with pytest.raises(UsageError, match="capture: expected a Capture"):
                await allm.generate([5], capture="all")
            return *results, stream.result

    looked, changed, cut = run(main())
    alone = llm.generate([5, 6], capture=capture, **PARAMS)
    assert looked.token_ids == alone.token_ids
    ours, theirs = looked.outputs[0].captured, alone.outputs[0].captured
    assert np.array_equal(ours["resid_post"], theirs["resid_post"]) and len(ours["resid_post"]) >= 13
    assert changed.token_ids == llm.generate([5, 7], interventions=changes, **PARAMS).token_ids
    assert changed.token_ids != llm.generate([5, 7], **PARAMS).token_ids
    assert cut.finish_reason in ("abort", "length") and cut.outputs[0].captured is not None
    recorder.close()
    (only,) = read_run(tmp_path / "one").branches
    assert [token.token_id for token in only.tokens] == looked.token_ids
    kept = read_run(tmp_path / "all")
    assert [branch.finish_reason for branch in kept.branches] == ["length", cut.finish_reason]
    assert [token.token_id for token in kept.branches[0].tokens] == changed.token_ids
    assert llm.replay(kept).equal
    assert idle(llm)


def test_a_run_file_that_cannot_be_written_ends_its_own_request_alone(llm, tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "run")
    recorder.attach(llm)
    engine, step = llm._loaded.engine, llm._loaded.engine.step
    frames, real = recorder.writer._frames, FrameWriter._put
    full, seen = threading.Event(), set()

    def put(self, data):
        if self is frames and full.is_set():
            raise RunFileError("run: no space left")
        real(self, data)

    def fills_the_disk():  # with the first token of the third request, the one that is recorded
        events = step()
        seen.update(event.request_id for event in events if event.token_id is not None)
        if len(seen) == 3:
            full.set()
        return events

    monkeypatch.setattr(FrameWriter, "_put", put)
    monkeypatch.setattr(engine, "step", fills_the_disk)

    async def main():
        async with AsyncLLM(llm) as allm:
            plain = asyncio.ensure_future(allm.generate([5, 9], **PARAMS | {"max_tokens": 60}))
            async with allm.stream([5, 8], **PARAMS | {"max_tokens": 200}) as first:
                await first.__anext__()
                with pytest.raises(RunFileError, match="no space left"):
                    async with allm.stream([5, 6], record=recorder, **PARAMS | {"max_tokens": 200}) as stream:
                        await stream.__anext__()
                assert full.is_set()
                with pytest.raises(RunFileError, match="no space left"):
                    await allm.generate([5, 6], n=2, record=recorder, **PARAMS)
            return await plain

    assert run(main()).token_ids == llm.generate([5, 9], **PARAMS | {"max_tokens": 60}).token_ids
    full.clear()
    seen.clear()
    assert idle(llm)
