"""When bounds of the logits are worth their while: a matter of time alone, told by what the last choices computed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pellucid.ops.cpu import CpuOps
from pellucid.ops.screening import MOST_RESCORED, MOST_ROWS, TRIED_EVERY, Screening
from pellucid.weights.tensor import Format, Tensor

HEAD = SimpleNamespace(lower_bytes=1000.0, num_bytes=2200.0)


def test_choices_that_compute_much_stop_it_and_it_is_tried_now_and_then() -> None:
    screening = Screening()
    assert screening.pays(1)
    for _ in range(3):  # a few do not yet count
        screening.note(1.0, HEAD)
    assert screening.pays(1)
    for _ in range(30):
        screening.note(1.0, HEAD)
    assert screening.mean_rescored > MOST_RESCORED
    asked = [screening.pays(1) for _ in range(3 * TRIED_EVERY)]
    assert [i for i, pays in enumerate(asked) if pays] == [i * TRIED_EVERY - 1 for i in (1, 2, 3)]
    for _ in range(30):
        screening.note(0.0, HEAD)
    assert all(screening.pays(1) for _ in range(3))


def test_rows_add_up_and_many_rows_never_pay() -> None:
    screening = Screening()
    assert [screening.pays(n) for n in range(MOST_ROWS + 2)] == [False, *[True] * MOST_ROWS, False]
    for _ in range(100):
        screening.note(MOST_RESCORED / 2.5, HEAD)
    assert screening.pays(1) and screening.pays(2) and not screening.pays(3)


def test_what_is_saved_is_the_lower_half_less_what_was_computed_again() -> None:
    screening = Screening()
    screening.note(0.0, HEAD)
    assert screening.saved_bytes == HEAD.lower_bytes
    for _ in range(300):
        screening.note(0.25, HEAD)
    assert screening.saved_bytes == pytest.approx(HEAD.lower_bytes - 0.25 * HEAD.num_bytes)


def test_a_split_head_takes_the_bytes_that_it_says() -> None:
    raw = np.zeros(80 * 3 * 34, np.uint8)  # 5 panels of 16 rows, 3 blocks of 32 inputs
    ops = CpuOps(1)
    before = ops.runner.packed_bytes
    head = ops.head(Tensor("head", (80, 96), Format.Q8_0, raw))
    assert head.lower_bytes == 80 * 96 // 2
    assert head.num_bytes == ops.runner.packed_bytes - before
    whole = ops.matrix(Tensor("whole", (80, 96), Format.Q8_0, raw))
    assert whole.lower_bytes == 0
