"""Run files that are well formed and mean nonsense: whatever looks at them answers, or says one line."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import PellucidError, Recorder, read_run
from pellucid.glass import run_writer as form
from pellucid.glass.diff import diff_runs
from pellucid.glass.frames import FrameReader, FrameWriter

PROMPT = "Once upon a time there was"


@pytest.fixture(scope="module")
def recorded(llm, tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "run"
    with Recorder(path, layers=True) as recorder:
        llm.generate(PROMPT, n=2, temperature=1, seed=3, top_p=0.9, max_tokens=6, record=recorder)
        generation = llm.begin([3, 4, 5], record=recorder, temperature=1, seed=1)
        generation.run(3)
        generation.rewind(2).append([7, 8]).run(2)
        generation.close()
    return path


def mutated(frames, rng):
    """One payload changed in its numbers: kinds, ids, counts, positions that nothing vouches for any more."""
    frames = [list(frame) for frame in frames]
    frame = frames[int(rng.integers(1, len(frames)))]
    payload = bytearray(frame[1])
    if frame[0] in (form.STEP, form.TOKENS, form.CUT, form.DROP) and len(payload) >= 4:
        where = int(rng.integers(0, min(len(payload), 40)))
        payload[where] ^= int(rng.integers(1, 256))
    elif frame[0] == form.BRANCH:
        where = int(rng.integers(max(4, len(payload) - 30), len(payload)))
        payload[where] ^= int(rng.integers(1, 256))
    frame[1] = bytes(payload)
    if rng.integers(3) == 0:
        frames.insert(
            int(rng.integers(2, len(frames))), [form.DROP, rng.integers(0, 9, 4).astype("<u4").tobytes()]
        )
    if rng.integers(3) == 0:
        del frames[int(rng.integers(2, len(frames)))]
    return frames


def test_nonsense_is_answered_or_refused_in_one_line(llm, recorded, tmp_path):
    frames = [(kind, payload) for _, kind, payload in FrameReader(str(recorded))]
    whole, path = read_run(recorded), tmp_path / "hostile"
    rng = np.random.default_rng(11)
    answered = refused = 0
    for _ in range(150):
        writer = FrameWriter(str(path))
        writer.write_all(mutated(frames, rng))
        writer.close()
        looks = (
            lambda: llm.replay(path).lines(),
            lambda: llm.replay(path, way="generate").lines(),
            lambda: llm.what_if(path, top_p=0.5).lines(llm.tokenizer.token_text),
            lambda: [str(llm.why(path, 0, sample=sample)) for sample in range(3)],
            lambda: diff_runs(whole, read_run(path)).lines(),
        )
        for look in looks:
            try:
                look()
                answered += 1
            except PellucidError as error:
                assert str(error) and "\n" not in str(error)
                refused += 1
    assert answered > 100 and refused > 100
