"""Weights packed on a thread of their own, in memory touched ahead: the same bits as packed at once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from test_cpu_ops import random_tensor

from pellucid import _native
from pellucid.ops.cpu import CpuOps
from pellucid.weights.mapped import MappedFile
from pellucid.weights.tensor import Format, Tensor

ROWS, WIDTH = 1203, 768  # no whole number of panels, several pieces in float formats


def in_file(tensor: Tensor, path: Path, offset: int) -> Tensor:
    """The same tensor as part of a mapped file, from byte `offset` on."""
    path.write_bytes(b"\xaa" * offset + tensor.data.tobytes() + b"\x55" * 100)
    source = MappedFile(path)
    data = source.data[offset : offset + len(tensor.data)]
    return Tensor(tensor.name, tensor.shape, tensor.format, data, source, offset)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "weight_format", [Format.Q4_1, Format.Q6_K, Format.BF16, Format.F32], ids=lambda f: f.label
)
def test_later_is_at_once(tmp_path: Path, weight_format: Format, threads: int) -> None:
    tensor = random_tensor(weight_format, ROWS, WIDTH)
    x = np.random.default_rng(2).normal(size=(5, WIDTH)).astype(np.float32)
    at_once = CpuOps(1)
    want = at_once.linear(x, at_once.matrix(tensor))
    for offset in (0, 4096, 5000):
        mapped = in_file(tensor, tmp_path / f"w{offset}", offset)
        for expected in (None, 1, len(tensor.data) // 2, 8 * len(tensor.data)):
            arena = None if expected is None else _native.Arena(expected)
            ops = CpuOps(threads, arena=arena)
            matrices = [ops.matrix(mapped) for _ in range(4)]
            # The first operation waits for the packing, whether or not anybody said that loading is over.
            if offset:
                ops.finish_loading()
            for matrix in matrices:
                np.testing.assert_array_equal(ops.linear(x, matrix), want)
        assert bytes(mapped.data) == bytes(tensor.data)  # pages that were given back come again


def test_more_after_the_end(tmp_path: Path) -> None:
    """What is asked for after `finish_loading` is packed too."""
    tensor = random_tensor(Format.Q4_K, ROWS, WIDTH)
    mapped = in_file(tensor, tmp_path / "w", 64)
    ops = CpuOps(2, arena=_native.Arena(1 << 20))
    x = np.ones((1, WIDTH), np.float32)
    ops.finish_loading()
    first = ops.linear(x, ops.matrix(mapped))
    ops.finish_loading()
    ops.finish_loading()
    np.testing.assert_array_equal(ops.linear(x, ops.matrix(mapped)), first)
    np.testing.assert_array_equal(ops.linear(x, ops.matrix(tensor)), first)


def test_given_up_on_the_way(tmp_path: Path) -> None:
    """A backend that goes while it packs takes its threads with it."""
    tensor = random_tensor(Format.F32, 20_000, WIDTH)
    mapped = in_file(tensor, tmp_path / "w", 0)
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
    for _ in range(5):
        ops = CpuOps(2, arena=_native.Arena(64 << 20))
        ops.matrix(mapped)
        del ops
    after = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
    assert after <= before
    assert bytes(mapped.data) == bytes(tensor.data)


def test_the_bytes_must_be_the_matrix() -> None:
    runner = _native.Runner(1)
    matrix = runner.allocate("Q4_0", 32, 64, None)
    with pytest.raises(ValueError, match="do not match"):
        runner.pack_mapped(matrix, np.zeros(10, np.uint8))
    with pytest.raises(ValueError, match="expected"):
        _native.Arena(-1)
