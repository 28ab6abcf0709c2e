"""Arrays of a pass: memory that is used again, and never while anybody holds it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pellucid import _native
from pellucid.ops.cpu import LEAST_TEMPORARY, CpuOps
from pellucid.weights.tensor import Format, Tensor


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_nobody_holds_is_given_again() -> None:
    temporaries = _native.Temporaries(1 << 20)
    first = temporaries.empty((3, 5, 7))
    assert first.shape == (3, 5, 7) and first.dtype == np.float32 and first.flags.c_contiguous
    assert address(first) % 64 == 0 and first.flags.writeable
    where, view = address(first), first[1:, 2]
    del first
    assert temporaries.num_kept == 0  # the view holds it
    assert address(temporaries.empty((105,))) != where
    view[:] = 3.0
    del view
    kept = temporaries.num_kept
    assert kept >= 2 * 105 * 4
    again = temporaries.empty((105,))
    assert address(again) == where and temporaries.num_kept < kept  # the latest first


def test_no_two_arrays_share_memory() -> None:
    """Whatever is dropped when: each array keeps what was written to it."""
    temporaries = _native.Temporaries(1 << 16)
    rng = np.random.default_rng(3)
    held: list[tuple[np.ndarray, float]] = []
    for turn in range(2000):
        array = temporaries.empty((int(rng.integers(0, 5)), int(rng.integers(0, 900))))
        array[:] = turn
        held.append((array, turn))
        assert temporaries.num_kept <= 1 << 16
        while len(held) > rng.integers(1, 12):
            array, value = held.pop(int(rng.integers(len(held))))
            assert (array == value).all()


def test_what_is_given_again_is_kept_no_longer() -> None:
    temporaries = _native.Temporaries(1 << 20)
    first = temporaries.empty((1000,))
    del first
    size = temporaries.num_kept
    assert size >= 4000
    one = temporaries.empty((1000,))
    assert temporaries.num_kept == 0
    two = temporaries.empty((1000,))
    assert temporaries.num_kept == 0 and abs(address(one) - address(two)) >= size
    del one, two
    assert temporaries.num_kept == 2 * size


def test_it_outlives_its_owner_and_other_threads_may_let_go() -> None:
    temporaries = _native.Temporaries(1 << 20)
    arrays = [temporaries.empty((1000,)) for _ in range(40)]
    for i, array in enumerate(arrays):
        array[:] = i
    threads = [threading.Thread(target=lambda part=arrays[i::4]: part.clear()) for i in range(4)]
    last = arrays[-1]
    del arrays, array
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del threads
    assert temporaries.num_kept > 0
    del temporaries
    assert (last == 39).all()


def test_no_more_is_kept_than_the_limit() -> None:
    temporaries = _native.Temporaries(1 << 16)
    large = temporaries.empty((3, 1 << 20))  # on huge pages, where the system has them
    large[:] = 7.0
    assert (large == 7.0).all()
    del large
    assert temporaries.num_kept == 0
    several = [temporaries.empty((n,)) for n in (3000, 4000, 6000, 7000, 8000)]
    several.clear()
    assert 0 < temporaries.num_kept <= 1 << 16


def test_sizes_are_checked() -> None:
    temporaries = _native.Temporaries(1 << 16)
    for shape in ((), (1, 2, 3, 4), (-1,), (1 << 31,), (1 << 30, 1 << 30)):
        with pytest.raises(ValueError, match="empty"):
            temporaries.empty(shape)


def test_a_pass_takes_its_arrays_there() -> None:
    """And what a caller keeps of one operation is not overwritten by the next."""
    ops = CpuOps(1)
    rng = np.random.default_rng(0)
    w = rng.normal(size=(256, 256)).astype(np.float32)
    matrix = ops.matrix(Tensor("w", w.shape, Format.F32, w.view(np.uint8).reshape(-1)))
    x = rng.normal(size=(LEAST_TEMPORARY // 256, 256)).astype(np.float32)
    first = ops.linear(x, matrix)
    copy, where = first.copy(), address(first)
    second = ops.linear(-x, matrix)
    assert np.array_equal(first, copy) and np.array_equal(second, -copy)
    del first
    assert ops.temporaries.num_kept > 0
    assert address(ops.linear(x, matrix)) == where
