"""The certified partial head: its product, its bounds and its choices against those of the whole row of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import _native
from pellucid.engine.sequence import Sequence
from pellucid.ops.cpu import CpuOps
from pellucid.ops.screening import MOST_ROWS
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.random import gumbel_argmax
from pellucid.sampling.sampler import Sampler
from pellucid.types import Batch
from pellucid.weights.tensor import Format, Tensor

EMPTY = np.zeros(1, np.int32)
CHOICE = Batch(EMPTY, EMPTY, EMPTY, EMPTY, np.zeros((1, 1), np.int32), EMPTY, choice_only=True)
PARAMETERS = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 8.0},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 1.7, "min_p": 0.004},
]


def history_of(length: int, dropped: int = 0) -> Sequence:
    """dropped: tokens that a full context has lost before."""
    history = Sequence(np.zeros(length + dropped, np.int32))
    history.drop(0, dropped)
    return history


def head_of(values: np.ndarray, scales: np.ndarray) -> Tensor:
    """int8 [rows, width] and float16 [rows, width / 32] as Q8_0."""
    rows, width = values.shape
    raw = np.empty((rows, width // 32, 34), np.uint8)
    raw[:, :, :2] = scales.astype(np.float16).view(np.uint8).reshape(rows, -1, 2)
    raw[:, :, 2:] = values.reshape(rows, -1, 32).view(np.uint8)
    return Tensor("head", (rows, width), Format.Q8_0, raw.reshape(-1))


def random_head(rng: np.random.Generator, rows: int, width: int, kind: str) -> Tensor:
    values = np.clip(np.round(rng.normal(0, 45, (rows, width))), -127, 127).astype(np.int8)
    scales = rng.uniform(0.0005, 0.01, (rows, width // 32))
    if kind == "ties":  # few different rows, some one unit apart in one value
        values[:] = values[rng.integers(0, min(3, rows), rows)]
        scales[:] = scales[0]
        values[rng.integers(0, rows, rows // 3), rng.integers(0, width, rows // 3)] ^= 1
    elif kind == "extreme":
        values[:] = rng.choice(np.array([-128, -127, 0, 1, 127], np.int8), (rows, width))
        scales *= rng.choice([1.0, -1.0, 0.0, 1e-5], scales.shape)
    elif kind == "aligned":  # all lower halves pull the same way: the bound is reached
        values[:] = (values & ~15) | rng.choice(np.array([0, 15], np.int8), (rows, 1))
    return head_of(values, scales)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.sampled_from([1, 15, 64, 257, 1000]),
    blocks=st.sampled_from([1, 2, 5, 18]),
    kind=st.sampled_from(["random", "ties", "extreme", "aligned"]),
    threads=st.sampled_from([1, 2]),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_choices_are_those_of_all_logits(
    seed: int, rows: int, blocks: int, kind: str, threads: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    width = 32 * blocks
    weight = random_head(rng, rows, width, kind)
    ops = CpuOps(threads)
    head, whole = ops.head(weight), ops.matrix(weight)
    assert head.is_split and not whole.is_split
    # The first chooses the hot inputs; of more than MOST_ROWS, and of a head that is not split, bounds are peaks.
    for position, num_rows in enumerate((1, 1, 2, MOST_ROWS, 1, MOST_ROWS, MOST_ROWS + 1, 13)):
        ops.screening.by_halves = position < 4
        x = rng.normal(size=(num_rows, width)) * np.exp(rng.normal(0, spread, (num_rows, width)))
        x = x.astype(np.float32)
        exact = ops.linear(x, whole)
        assert np.array_equal(ops.linear(x, head).view(np.uint32), exact.view(np.uint32))
        found = ops.logits(x, whole if num_rows == 13 or position == 4 else head, CHOICE)
        assert not isinstance(found, np.ndarray) and len(found) == num_rows
        assert all(bounds.screen.of_peaks == (position >= 4) for bounds in found)  # type: ignore[attr-defined]
        for row, bounds in enumerate(found):
            assert np.all(exact[row] <= bounds.screen.upper(row))  # type: ignore[attr-defined]
            for values in PARAMETERS:
                sampler = Sampler(SamplingParams(**values, seed=position), seed + position)
                assert sampler.chooses
                history = history_of(5 + position, 7 * position)
                assert sampler.choose_from_bounds(history, bounds) == sampler.choose(history, exact[row])
            assert np.array_equal(bounds.exact().view(np.uint32), exact[row : row + 1].view(np.uint32))


def by_halves(threads: int, isa: str | None = None) -> CpuOps:
    """Operations that read half of the bits of a split head."""
    ops = CpuOps(threads, isa)
    ops.screening.by_halves = True
    return ops


@pytest.mark.parametrize("halves", [True, False])
def test_every_part_of_the_key_reaches_the_noise(halves: bool) -> None:
    rng = np.random.default_rng(6)
    weight = random_head(rng, 400, 64, "random")
    ops = by_halves(1) if halves else CpuOps(1)
    x = rng.normal(size=(1, 64)).astype(np.float32)
    logits = ops.linear(x, ops.matrix(weight))[0]
    head, found = ops.head(weight), set()
    for key in ((7, 0, 0, 0), (8, 0, 0, 0), (7 + 2**40, 0, 0, 0), (7, 3, 0, 0), (7, 0, 9, 0), (7, 0, 0, 2)):
        (bounds,) = ops.logits(x, head, CHOICE)
        token = bounds.choose(8.0, 0.0, *key)  # type: ignore[union-attr]
        assert token == gumbel_argmax(logits / np.float32(8.0), *key)
        found.add(token)
    assert len(found) == 6  # so no part could be left out


@pytest.mark.parametrize("num_rows", [1, 70])
@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_every_instruction_set_has_the_same_bounds(isa: str, num_rows: int) -> None:
    rng = np.random.default_rng(3)
    weight = random_head(rng, 600, 96, "random")
    x = rng.normal(size=(num_rows, 96)).astype(np.float32)
    uppers = []
    for ops in (CpuOps(1, "scalar"), CpuOps(2, isa)):
        ops.screening.by_halves = num_rows == 1
        bounds = ops.logits(x, ops.head(weight), CHOICE)
        uppers.append(np.stack([b.screen.upper(i) for i, b in enumerate(bounds)]))  # type: ignore[union-attr]
    assert np.array_equal(uppers[0].view(np.uint32), uppers[1].view(np.uint32))


def test_a_likely_choice_computes_little() -> None:
    """One row that stands out: nothing else is in question. One thread: each begins with a likely panel of its own."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1, 640)).astype(np.float32)
    values = np.clip(np.round(rng.normal(0, 40, (4096, 640))), -127, 127).astype(np.int8)
    values[1234] = np.clip(np.round(x[0] * 50), -127, 127)
    ops = by_halves(2)
    (bounds,) = ops.logits(x, ops.head(head_of(values, np.full((4096, 20), 0.01))), CHOICE)
    assert bounds.choose(0.0, 0.0, 0, 0, 0, 0) == 1234  # type: ignore[union-attr]
    assert bounds.screen.num_rescored <= 2  # type: ignore[union-attr]


@pytest.mark.parametrize("label", ["Q8_0", "Q4_0"])
def test_peaks_are_the_largest_of_their_panels(label: str) -> None:
    """700 outputs: peaks of 16 panels of 16, and of the 12 that are left, the last of them not whole."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(70, 64)).astype(np.float32)
    kind = Format[label]
    raw = rng.integers(0, 256, (700 * 64 // kind.block_size, kind.block_bytes), dtype=np.uint8)
    raw[:, :2] = rng.uniform(0.002, 0.02, len(raw)).astype(np.float16).view(np.uint8).reshape(-1, 2)
    ops = CpuOps(3)
    low = np.full(700, -1e4, np.float32)  # what lies past the end is not the largest, either
    head = ops.matrix(Tensor("head", (700, 64), kind, raw.reshape(-1)), low)
    exact = ops.linear(x, head)
    padded = np.pad(exact, ((0, 0), (0, 768 - 700)), constant_values=-np.inf).reshape(70, 3, 16, 16)
    want = np.broadcast_to(padded.max(axis=2, keepdims=True), padded.shape).reshape(70, 768)[:, :700]
    bounds = ops.logits(x, head, CHOICE)
    for row, bound in enumerate(bounds):
        assert np.array_equal(bound.screen.upper(row), want[row])  # type: ignore[union-attr]
        assert bound.choose(0.0, 0.0, 0, 0, 0, 0) == exact[row].argmax()  # type: ignore[union-attr]
        assert bound.screen.num_rescored in (12, 16)  # type: ignore[union-attr]


def test_floats_have_no_peaks() -> None:
    ops = CpuOps(1)
    weight = np.random.default_rng(1).normal(size=(40, 32)).astype(np.float32)
    head = ops.matrix(Tensor("head", (40, 32), Format.F32, weight.view(np.uint8).reshape(-1)))
    assert isinstance(ops.logits(np.ones((9, 32), np.float32), head, CHOICE), np.ndarray)
    with pytest.raises(ValueError, match="not quantised"):
        ops.runner.make_peaks(head, 9)


def test_screens_of_both_kinds_are_told_apart() -> None:
    ops = CpuOps(1)
    head = ops.head(random_head(np.random.default_rng(2), 64, 64, "random"))
    x = np.ones((2, 64), np.float32)
    with pytest.raises(ValueError, match="of peaks"):
        ops.runner.screen(x, ops.runner.make_peaks(head, 2))
    with pytest.raises(ValueError, match="of halves"):
        ops.runner.peaks(x, ops.runner.make_screen(head, 2))
    with pytest.raises(ValueError, match="num_rows rows"):
        ops.runner.peaks(x, ops.runner.make_peaks(head, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_peaks_that_are_not_finite_are_left_to_the_logits(bad: float) -> None:
    rng = np.random.default_rng(5)
    ops = CpuOps(2)
    head = ops.head(random_head(rng, 64, 64, "random"))
    x = rng.normal(size=(MOST_ROWS + 1, 64)).astype(np.float32)
    good = ops.linear(x, head)
    x[2, 7] = bad
    found = ops.logits(x, head, CHOICE)
    assert all(bounds.choose(0.0, 0.0, 0, 0, 0, 0) is None for bounds in found)  # type: ignore[union-attr]
    sampler = Sampler(SamplingParams(), 0)
    assert sampler.choose_from_bounds(history_of(3), found[1]).token_id == good[1].argmax()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        sampler.choose_from_bounds(history_of(3), found[2])  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_left_to_the_logits(bad: float) -> None:
    rng = np.random.default_rng(5)
    ops = by_halves(2)
    head = ops.head(random_head(rng, 64, 64, "random"))
    x = rng.normal(size=(1, 64)).astype(np.float32)
    x[0, 7] = bad
    (bounds,) = ops.logits(x, head, CHOICE)
    assert bounds.choose(0.0, 0.0, 0, 0, 0, 0) is None  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="NaN"):
        Sampler(SamplingParams(), 0).choose_from_bounds(history_of(3), bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {"logprobs": 0},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 1.0, "top_k": 40},
        {"repetition_penalty": 1.1},
        {"logit_bias": {3: 1.0}},
        {"temperature": 1.0, "min_p": 0.1, "min_keep": 3},
    ],
)
def test_who_needs_more_than_bounds_says_so(values: dict[str, object]) -> None:
    assert not Sampler(SamplingParams(**values), 0).chooses
