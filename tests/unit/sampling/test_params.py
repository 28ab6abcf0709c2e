"""SamplingParams: derived from the processors' fields, checked, frozen."""

from __future__ import annotations

import inspect
import math
import pickle

import numpy as np
import pytest

from pellucid.errors import UsageError
from pellucid.sampling.base import samplers
from pellucid.sampling.params import SamplingParams


def test_the_default_is_greedy_and_has_no_processors():
    params = SamplingParams()
    assert params.greedy and params.temperature == 0 and params.processors() == []
    assert repr(params) == "SamplingParams()" and params.non_defaults() == {}


def test_every_field_of_every_processor_is_a_parameter():
    names = {p.name: p for p in SamplingParams.fields()}
    for processor in samplers:
        for field in inspect.signature(samplers[processor]).parameters:
            assert names[field].processor == processor
    assert list(inspect.signature(SamplingParams).parameters) == [p.name for p in SamplingParams.fields()]
    assert all(p.help for p in names.values())
    assert (
        names["top_p"].range == "0.0 < value <= 1.0" and names["temperature"].range == "0.0 <= value <= 100.0"
    )


def test_defaults_pass_their_own_check():
    for p in SamplingParams.fields():
        assert p.check(p.default) == p.default
        assert p.json_schema()["description"] == p.help


def outside(p):
    """Values that a parameter must refuse."""
    yield from (object(), b"x", 1j, float("nan"), float("inf"), -float("inf"), np.float32("nan"))
    if not p.optional:
        yield None
    if p.kind in ("int", "float"):
        yield from (True, np.True_, "1", [1])
        yield from (
            math.nextafter(bound, side)
            for bound, side in ((p.minimum, -1e99), (p.maximum, 1e99))
            if bound is not None
        )
        if p.above is not None:
            yield p.above
    if p.kind == "int":
        yield from (1.0, 1.5, np.float64(1))
        yield from (p.minimum - 1, p.maximum + 1)
    if p.kind == "bool":
        yield from (0, 1, "true")
    if p.kind == "ids":
        yield from ("12", [1.0], [-1], [True], [2**31], {1: 2}, 5, ["1"])
    if p.kind == "bias":
        yield from (
            {1: "1"},
            {1: math.nan},
            {-1: 1},
            {1.0: 1},
            {True: 1},
            {"a": 1},
            {1: 1e9},
            {1: 1, "1": 2},
            [1],
            5,
        )
    if p.kind == "strings":
        yield from ("", [""], [1], {"a": 1}, 5)


@pytest.mark.parametrize("p", SamplingParams.fields(), ids=lambda p: p.name)
def test_what_is_out_of_range_is_refused_in_one_line(p):
    for value in outside(p):
        with pytest.raises(UsageError, match=f"^{p.name}: expected ") as caught:
            SamplingParams(**{p.name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("p", SamplingParams.fields(), ids=lambda p: p.name)
def test_bounds_are_inside(p):
    if p.kind in ("int", "float"):
        for bound in (p.minimum, p.maximum):
            if bound is not None:
                others = {"max_tokens": None} if p.name == "min_tokens" else {}
                assert getattr(SamplingParams(**{p.name: bound}, **others), p.name) == bound


def test_values_take_one_form():
    params = SamplingParams(
        stop="END",
        stop_token_ids=np.array([5, 3, 3]),
        logit_bias={"7": 1, 2: -2.5},
        top_k=np.int64(4),
        temperature=1,
    )
    assert params.stop == ("END",) and params.stop_token_ids == (3, 5)
    assert params.logit_bias == ((2, -2.5), (7, 1.0))
    assert type(params.top_k) is int and type(params.temperature) is float
    assert SamplingParams(stop=["a", "b", "a"]).stop == ("a", "b")


def test_unknown_names_are_refused_with_a_hint():
    with pytest.raises(UsageError, match="no sampling parameter 'topk'; did you mean top_k"):
        SamplingParams(topk=3)
    with pytest.raises(UsageError, match="there are: max_tokens"):
        SamplingParams(zzz=3)


def test_contradictions_are_refused():
    with pytest.raises(UsageError, match="min_tokens=5 is more than max_tokens=4"):
        SamplingParams(min_tokens=5, max_tokens=4)
    with pytest.raises(UsageError, match="leave no token"):
        SamplingParams(allowed_ids=[1, 2], banned_ids=[2, 1, 3])
    with pytest.raises(UsageError, match="leave no token"):
        SamplingParams(allowed_ids=[])
    with pytest.raises(UsageError, match="0 \\(greedy\\) or at least"):
        SamplingParams(temperature=1e-9)


def test_frozen_equal_hashed_copied_pickled():
    params = SamplingParams(temperature=0.5, stop="x", logit_bias={3: 1.0})
    for change in (lambda: setattr(params, "n", 2), lambda: delattr(params, "n"), lambda: params.nothing):
        with pytest.raises(AttributeError):
            change()
    assert params == SamplingParams(logit_bias={3: 1}, stop=["x"], temperature=0.5) != SamplingParams()
    assert len({params, params.replace(), params.replace(n=2)}) == 2
    assert pickle.loads(pickle.dumps(params)) == params
    assert SamplingParams(**params.to_dict()) == params and params.to_dict()["logit_bias"] == {"3": 1.0}
    assert eval(repr(params)) == params  # noqa: S307
    with pytest.raises(UsageError):
        params.replace(temperature=-1)


def test_settings_without_effect_are_told():
    assert SamplingParams(top_p=0.9, seed=1, repetition_penalty=1.1).without_effect() == ["top_p", "seed"]
    assert SamplingParams(top_p=0.9, seed=1, temperature=1).without_effect() == []


def test_order_of_processors():
    values = {
        "min_p": 0.1,
        "top_p": 0.5,
        "top_k": 1,
        "temperature": 2,
        "presence_penalty": 1,
        "min_tokens": 1,
    }
    params = SamplingParams(banned_ids=[2], allowed_ids=[1, 2], logit_bias={1: 1}, **values)
    names = "LogitBias AllowedIds BannedIds MinTokens Penalties Temperature TopK TopP MinP"
    assert [type(p).__name__ for p in params.processors()] == names.split()
