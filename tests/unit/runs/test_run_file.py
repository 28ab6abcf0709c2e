"""Run files: what is written is read, whatever a kill leaves is read up to there, and no other byte is accepted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from pellucid import LLM, Recorder, RunFileError, UsageError, read_run
from pellucid.front import recorder as recorder_module
from pellucid.front.recorder import MOST_WAITING
from pellucid.glass.frames import MAGIC, FrameReader, FrameWriter, check_byte
from pellucid.glass.run import Plan, RunDrop, RunToken
from pellucid.glass.run_writer import RunWriter, plan_data
from pellucid.settings import Setting, Settings

PROMPT = "Once upon a time there was"
PARAMS = {"temperature": 1.1, "seed": 4, "ignore_eos": True, "max_tokens": 24, "logit_bias": {5: 1.5}}
HEADER = {
    "pellucid": "1",
    "created": "now",
    "build": {"backend": "cpu"},
    "model": {"weights": "abc"},
    "model_name": "a model",
    "settings": Settings([Setting("backend", "cpu", "default")]).to_dict(),
    "digests": "final",
    "num_layers": 2,
}
PLAN = Plan(
    {"temperature": 0.5}, 2**64 - 1, (1, 7), Settings([Setting("temperature", 0.5, "caller", "a note")])
)
BRANCH = {
    "request": 0, "parent": None, "sample_index": 0, "strategy": "sample", "prompt": "äöü\n\0", "plan": plan_data(PLAN),
    "interventions": [{"kind": "x"}], "cache_salt": "me", "companion_ids": None,
}  # fmt: skip


def token(position, token_id, **more):
    return RunToken(position, token_id, **more)


def write_one(path):
    """Every kind of frame; (the branches that must come back as lists of tokens, the prompts)."""
    writer = RunWriter(path, HEADER)
    a = writer.begin(BRANCH, [5, 6, 7])
    first = token(
        3, 9, digest=2**64 - 1, sketch=0.5, layers=(1, 2**63), pass_number=7, num_rows=3, num_computed=9,
        num_reused=2, schedule=0.25, forward=0.5,
        choose=0.125, text=0.0625, from_draft=True,
    )  # fmt: skip
    writer.steps([(a, first)])
    second = token(
        4,
        10,
        kind="forced",
        num_computed=0,
        num_reused=0,
        altered={4: -np.inf, 300: 1.5},
        digest=0,
        sketch=0.0,
    )
    writer.steps([(a, second)])
    b = writer.begin({"request": 0, "parent": a, "forked_at": 4, "sample_index": 1, "strategy": "sample"})
    writer.plan(b, PLAN)
    third = token(4, 11, plan=1, num_computed=1, num_reused=0)
    writer.steps([(b, third)])
    writer.tokens(b, "given", [1, 2, 3])
    writer.cut(b, 6)
    writer.array(b, "v", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.end(a, {"finish_reason": "stop", "stop_match": "x", "timings": {"total": 1.5}})
    writer.end(b, {"finish_reason": None, "stop_match": 7, "timings": {}})
    c = writer.begin({**BRANCH, "request": 1, "prompt": None}, [1, 2, 3, 4])
    writer.steps([(c, token(4, 5, num_computed=0, num_reused=0))])
    writer.drop(c, RunDrop(1, 1, 2))
    writer.steps([(c, token(3, 6, num_computed=0, num_reused=0))])
    writer.cut(c, 2)
    writer.tokens(c, "prompt", [8])
    writer.close()
    return [[first, second], [first, third, token(5, 1, kind="given", plan=1)], []]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "run"
    expected = write_one(path)
    run = read_run(path)
    assert [branch.tokens for branch in run.branches] == expected
    a, b, c = run.branches
    assert (a.prompt, a.prompt_ids, a.interventions, a.cache_salt) == (
        "äöü\n\0",
        [5, 6, 7],
        [{"kind": "x"}],
        "me",
    )
    assert (a.finish_reason, a.stop_match, a.timings, a.ended) == ("stop", "x", {"total": 1.5}, True)
    assert (b.parent, b.forked_at, b.sample_index, b.undone, b.stop_match) == (0, 4, 1, 2, 7)
    assert np.array_equal(b.arrays["v"], np.arange(6).reshape(2, 3))
    assert (c.prompt_ids, c.undone, c.ended, c.request) == ([1, 2, 8], 2, False, 1)
    assert a.plans == [Plan(PLAN.params, PLAN.seed, PLAN.stop_ids, run.load.merged(PLAN.settings.values()))]
    assert (a.seed, a.stop_ids, a.params.temperature) == (2**64 - 1, (1, 7), 0.5)
    assert run.model == {"weights": "abc", "activations": "f32"}  # which no older file says
    assert (run.model_name, run.num_layers) == ("a model", 2)
    assert not run.complete and run.num_cut_bytes == 0 and run.num_bytes == path.stat().st_size
    assert run.num_tokens == 4


def test_any_beginning_is_read_up_to_its_last_whole_frame(tmp_path):
    path, cut = tmp_path / "run", tmp_path / "cut"
    write_one(path)
    data = path.read_bytes()
    ends = [0, len(MAGIC)]
    for at, _, payload in FrameReader(str(path)):
        ends.append(at + 5 + len(payload) + 4)
    assert ends[-1] == len(data)
    whole = read_run(path)
    near = {end + i for end in ends for i in range(-3, 12)}
    for length in sorted(near | set(range(0, len(data), 17))):
        if not 0 <= length <= len(data):
            continue
        cut.write_bytes(data[:length])
        if length < ends[2]:
            with pytest.raises(RunFileError, match="magic|cut before the end"):
                read_run(cut)
            continue
        run = read_run(cut)
        last = max(end for end in ends if end <= length)
        assert run.num_cut_bytes == length - last and not (run.num_cut_bytes and run.complete)
        assert len(run.branches) <= len(whole.branches)


def test_every_changed_byte_is_found(tmp_path):
    path, broken = tmp_path / "run", tmp_path / "broken"
    write_one(path)
    data = path.read_bytes()
    rng = np.random.default_rng(3)
    for place in {*range(0, len(data), 3), *range(60), *range(len(data) - 60, len(data))}:
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        broken.write_bytes(changed)
        with pytest.raises(RunFileError) as caught:
            read_run(broken)
        assert "\n" not in str(caught.value) and str(broken) in str(caught.value)


def test_frames_left_out_repeated_or_moved_are_found(tmp_path):
    path, broken = tmp_path / "run", tmp_path / "broken"
    write_one(path)
    data = path.read_bytes()
    frames = [data[at : at + 9 + len(payload)] for at, _, payload in FrameReader(str(path))]
    assert data == MAGIC + b"".join(frames)
    for i in range(1, len(frames) - 1):
        for mutated in (
            frames[:i] + frames[i + 1 :],
            [*frames[:i], frames[i], *frames[i:]],
            [*frames[:i], frames[i + 1], frames[i], *frames[i + 2 :]],
        ):
            broken.write_bytes(MAGIC + b"".join(mutated))
            with pytest.raises(RunFileError, match="damaged"):
                read_run(broken)


def test_hostile_frames_with_right_checksums_are_one_line(tmp_path):
    """Payloads of every kind with random changes, under checksums that fit: a run, or one line that says where."""
    path, hostile = tmp_path / "run", tmp_path / "hostile"
    write_one(path)
    frames = [(kind, payload) for _, kind, payload in FrameReader(str(path))]
    rng = np.random.default_rng(8)
    refused = 0
    for _ in range(400):
        mutated = frames.copy()
        index = int(rng.integers(len(frames)))
        kind, payload = mutated[index]
        changed = bytearray(payload)
        action = rng.integers(5)
        if action == 0 and changed:
            changed[int(rng.integers(len(changed)))] ^= int(rng.integers(1, 256))
        elif action == 1:
            del changed[int(rng.integers(len(changed) + 1)) :]
        elif action == 2:
            changed += rng.bytes(int(rng.integers(1, 20)))
        elif action == 3:
            kind = int(rng.integers(256))
        else:
            changed = bytearray(rng.bytes(int(rng.integers(60))))
        mutated[index] = (kind, bytes(changed))
        if rng.integers(4) == 0:
            del mutated[int(rng.integers(len(mutated)))]
        writer = FrameWriter(str(hostile))
        for each in mutated:
            writer.write(*each)
        writer.close()
        try:
            run = read_run(hostile)
        except RunFileError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            for branch in run.branches:
                assert all(t.token_id >= 0 and t.plan < len(branch.plans) for t in branch.tokens)
    assert refused > 200


def test_the_check_byte_knows_every_changed_byte():
    rng = np.random.default_rng(0)
    for head in rng.integers(0, 256, (50, 4), np.uint8):
        for place in range(4):
            for value in range(256):
                other = bytearray(head.tobytes())
                other[place] = value
                same = value == head[place]
                assert (check_byte(bytes(other)) == check_byte(head.tobytes())) == same


def test_a_request_of_several_samples_is_recorded(llm, tmp_path):
    path = tmp_path / "run"
    result = llm.generate(PROMPT, n=3, stop=["q"], record=path, **PARAMS)
    run = read_run(path)
    assert run.complete and [b.sample_index for b in run.branches] == [0, 1, 2]
    for branch, sample in zip(run.branches, result.outputs, strict=True):
        assert branch.output_ids == sample.token_ids
        assert (branch.finish_reason, branch.stop_match) == (sample.finish_reason, sample.stop_match)
        assert branch.prompt_ids == result.prompt_token_ids and branch.prompt == PROMPT
        assert [t.position for t in branch.tokens] == list(
            range(len(branch.prompt_ids), len(branch.prompt_ids) + len(branch.tokens))
        )
        assert branch.params == llm._resolve(None, {"n": 3, "stop": ["q"], **PARAMS}, False)[0]
        assert branch.seed == 4 and 1 not in branch.stop_ids
        assert dict(branch.settings).keys() == dict(result.settings).keys()
        assert all(branch.settings[name].origin == result.settings[name].origin for name in result.settings)
        assert all(t.num_rows >= 1 and t.forward > 0 for t in branch.tokens)


def test_several_requests_in_one_file(llm, tmp_path):
    path = tmp_path / "run"
    with Recorder(path) as recorder:
        results = llm.generate([PROMPT, "b", [5, 6, 7]], record=recorder, **PARAMS)
        stream = llm.stream("c", record=recorder, **PARAMS)
        next(stream)
        stream.close()
    run = read_run(path)
    by_request = {branch.request: branch for branch in run.branches}
    texts = {branch.prompt: branch for branch in run.branches}
    assert len(by_request) == 4
    for result in results:
        assert texts[result.prompt].output_ids == result.token_ids
    assert texts["c"].finish_reason == "abort" and run.complete


def test_misuse_is_told(llm, tiny_path, tmp_path):
    text = tmp_path / "text"
    text.write_text("precious")
    with pytest.raises(RunFileError, match="no run file; give another name"):
        llm.generate(PROMPT, max_tokens=1, record=text)
    assert text.read_text() == "precious"
    with pytest.raises(RunFileError, match="No such file"):
        llm.generate(PROMPT, max_tokens=1, record=tmp_path / "no" / "where")
    with pytest.raises(RunFileError, match="folder"):
        llm.generate(PROMPT, max_tokens=1, record=tmp_path)
    for wrong in (7, b"x", ""):
        with pytest.raises(UsageError, match="record"):
            llm.generate(PROMPT, max_tokens=1, record=wrong)
    recorder = Recorder(tmp_path / "run")
    llm.generate(PROMPT, max_tokens=1, record=recorder)
    with LLM(tiny_path, backend="reference") as other, pytest.raises(UsageError, match="another LLM"):
        other.generate(PROMPT, max_tokens=1, record=recorder)
    recorder.close()
    with pytest.raises(UsageError, match="closed"):
        llm.generate(PROMPT, max_tokens=1, record=recorder)
    with pytest.raises(RunFileError, match="no such file"):
        read_run(tmp_path / "absent")
    with pytest.raises(RunFileError, match="no run file"):
        read_run(text)
    os.mkfifo(tmp_path / "pipe")
    for no_file in (
        tmp_path,
        tmp_path / "pipe",
    ):  # nobody writes into the pipe: opening it would wait for ever
        with pytest.raises(RunFileError, match="is a folder, a device or a pipe; give a file"):
            read_run(no_file)
    llm.generate(PROMPT, max_tokens=2, record=tmp_path / "run")  # a run file is replaced
    assert read_run(tmp_path / "run").num_tokens == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_ends_the_request_with_an_error(llm, tmp_path, monkeypatch):
    path = tmp_path / "run"
    recorder = Recorder(path)
    recorder.attach(llm)
    room = recorder.num_bytes + 1500
    real = type(recorder.writer._frames)._put

    def put(self, data):
        if self.num_bytes + len(data) > room:
            os.dup2(os.open("/dev/full", os.O_WRONLY), self._file.fileno())
        real(self, data)

    monkeypatch.setattr(type(recorder.writer._frames), "_put", put)
    with pytest.raises(RunFileError, match="No space left"):
        llm.generate(PROMPT, record=recorder, **PARAMS)
    assert llm.generate(PROMPT, **PARAMS).finish_reason == "length"  # nothing else is hurt


def test_an_end_that_cannot_be_written_ends_the_stream_and_is_told(llm, tmp_path, monkeypatch):
    def put(self, data):
        raise RunFileError("run: no space left")

    stream = llm.stream(PROMPT, n=2, record=tmp_path / "run", **PARAMS)
    next(stream)
    with monkeypatch.context() as full:
        full.setattr(FrameWriter, "_put", put)
        with pytest.raises(RunFileError, match="no space left"):
            stream.close()
    stream.close()  # told once
    assert [sample.finish_reason for sample in stream.result.outputs] == ["abort", "abort"]
    engine = llm._need().engine
    assert engine.pool.num_used == 0 and not engine.has_work and not llm._driver._running


KILLED = """
import sys
from pellucid import LLM
llm = LLM(sys.argv[1], num_threads=1)
stream = llm.stream("Once upon a time", temperature=1, seed=3, max_tokens=500, ignore_eos=True, record=sys.argv[2])
for number, chunk in enumerate(stream):
    print(chunk.token_id, flush=True)
    if number == 400:
        sys.stdin.read()  # until it is killed: whoever kills it may be slow
"""


def test_steps_wait_no_longer_than_they_may(monkeypatch):
    """By the clock that the steps bring; and no more of them than so many."""
    written = []

    class Writer:
        closed = False
        packed_steps = staticmethod(written.append)

    monkeypatch.setattr(recorder_module, "packed", lambda step: step)
    steps = recorder_module.StepBuffer(Writer())
    for number, (now, so_far) in enumerate(
        [(5.0, 0), (5.2, 0), (5.25, 0), (5.26, 1), (5.3, 1), (5.54, 1), (5.56, 2)]
    ):
        steps.add(number, now)
        assert len(written) == so_far, now
    assert written == [[0, 1, 2, 3], [4, 5, 6]]
    for number in range(MOST_WAITING):
        assert len(written) == 2
        steps.add(number, 6.0)
    assert written[2] == list(range(MOST_WAITING))


def test_a_kill_leaves_a_beginning(tiny_path, tmp_path):
    path = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tiny_path), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = [int(child.stdout.readline()) for _ in range(150)]  # more than wait in memory at a time
    child.send_signal(signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().split()]
    child.wait()
    run = read_run(path)
    (branch,) = run.branches
    found = branch.output_ids
    assert found == told[: len(found)] or found[: len(told)] == told
    assert len(found) >= len(told) - MOST_WAITING and not run.complete


def test_what_waits_is_written_at_the_end_of_the_process(tiny_path, tmp_path):
    code = KILLED.replace("print(chunk.token_id, flush=True)", "break")
    subprocess.run([sys.executable, "-c", code, str(tiny_path), str(tmp_path / "run")], check=True)
    assert read_run(tmp_path / "run").num_tokens >= 1
