"""`stage`: a frozen dataclass from its first instance on, and told apart from one by nobody."""

from __future__ import annotations

import copy
import dataclasses
import threading
from typing import ClassVar

import pytest

from pellucid.errors import UsageError
from pellucid.sampling.base import fields_of, parameter, samplers, shared, stage


def fresh() -> type:
    """A class of which there is no instance yet."""

    @stage
    class Both:
        order: ClassVar[int] = 5

        low: float = parameter(0.0, "float", "the least")
        high: float = parameter(1.0, "float", "the most")
        min_keep: int = shared(1)

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise UsageError("low is above high")

    return Both


def test_it_is_a_frozen_dataclass() -> None:
    kind = fresh()
    one = kind(0.25, min_keep=2)
    assert dataclasses.is_dataclass(kind) and dataclasses.astuple(one) == (0.25, 1.0, 2)
    assert one == kind(low=0.25, min_keep=2) != kind() and hash(one) == hash(kind(0.25, 1.0, 2))
    assert copy.copy(one) == one == dataclasses.replace(one, high=1.0)
    assert repr(one).endswith("Both(low=0.25, high=1.0, min_keep=2)") and kind.order == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.low = 0.5


def test_its_first_instance_is_checked_like_the_others() -> None:
    with pytest.raises(UsageError):
        fresh()(2.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'middle'"):
        fresh()(middle=1.0)


@pytest.mark.parametrize("kind", [fresh(), *(samplers[name] for name in samplers)])
def test_its_fields_are_known_before_and_the_same_after(kind: type) -> None:
    before = fields_of(kind)
    kind()
    after = fields_of(kind)
    assert list(before) == list(after) == [field.name for field in dataclasses.fields(kind)]
    for name, field in before.items():
        assert (field.default, field.metadata) == (after[name].default, after[name].metadata)


def test_many_threads_make_the_first_instance_together() -> None:
    for _ in range(20):
        kind, together, made = fresh(), threading.Barrier(8), []

        def make(
            kind: type = kind, together: threading.Barrier = together, made: list[object] = made
        ) -> None:
            together.wait()
            made.append(kind(0.5))

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [kind(0.5)] * 8
