"""SamplingParams: derived from the processors' fields, checked, frozen."""

from __future__ import annotations

import inspect
import math
import pickle

import numpy as np
import pytest

from pellucid.errors import UsageError
from pellucid.sampling.base import fields_of, samplers
from pellucid.sampling.params import SamplingParams


def test_the_default_is_greedy_and_has_no_processors():
    params = SamplingParams()
    assert params.greedy and params.temperature == 0 and params.processors() == []
    assert repr(params) == "SamplingParams()" and params.non_defaults() == {}


def test_every_field_of_every_processor_is_a_parameter():
    names = {p.name: p for p in SamplingParams.fields()}
    for processor in samplers:
        for name, field in fields_of(samplers[processor]).items():
            if "bound" in field.metadata:  # no parameter: an LLM puts it there
                assert name not in names
            elif "shared" in field.metadata:
                assert names[name].processor != processor
            else:
                assert names[name].processor == processor
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
        yield from ("", [""], [1], [[1]], {"a": 1}, 5)
    if p.kind == "names":
        yield from ("", [], ["hf", "hf"], [1], {"hf": 1}, 5)
    if p.kind == "choice":
        yield from ("", "ID", 5, ["all"])
    if p.kind == "sequences":
        yield from ([1], [[]], [["1"]], [[-1]], [[2**31]], {"a": 1}, 5, "1,2")
    if p.kind == "sequence_bias":
        yield from (
            [[1, 2]],
            [[[1], "2"]],
            [[[1], math.nan]],
            [[[], 1.0]],
            [[[1], 1e9]],
            [[[1], 1, 1]],
            {1: 2.0},
            5,
        )
        yield [[[1], 1.0], [[1], 2.0]]
    if p.kind == "functions":
        yield from ([1], ["name"], 5, {"a": len}, len)


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
                others = {"temperature": 1} if p.name in ("xtc_probability", "dynatemp_range") else {}
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
    assert SamplingParams(top_p=0.9, seed=1, repetition_penalty=1.1).without_effect() == {
        "seed": "temperature is 0",
        "top_p": "temperature is 0",
    }
    assert SamplingParams(top_p=0.9, seed=1, temperature=1).without_effect() == {}
    why = "repetition_penalty or presence_penalty or frequency_penalty is not set"
    assert SamplingParams(penalty_last_n=5).without_effect() == {"penalty_last_n": why}
    assert SamplingParams(order="llamacpp").without_effect() == {}
    assert SamplingParams(order="hf", typical_p=0.5).without_effect() == {"typical_p": "temperature is 0"}
    assert SamplingParams(typical_p=0.5).without_effect() == {}


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
    assert list(params.stages())[-3:] == ["top_k", "top_p", "min_p"]
    names = "LogitBias AllowedIds BannedIds MinTokens Penalties Temperature TopK TopP MinP"
    assert [type(p).__name__ for p in params.processors()] == names.split()


def test_an_order_is_a_list_of_stages_or_a_preset():
    cuts = {"temperature": 1, "top_k": 5, "top_p": 0.5, "min_p": 0.1}
    for order, stages in (
        ("pellucid", "temperature top_k top_p min_p"),
        ("hf", "temperature top_k top_p min_p"),
        ("vllm", "temperature min_p top_k top_p"),
        ("llamacpp", "top_k top_p min_p temperature"),
        (["min_p", "top_p", "temperature", "top_k", "xtc"], "min_p top_p temperature top_k"),
    ):
        assert list(SamplingParams(order=order, **cuts).stages()) == stages.split()
    assert list(SamplingParams(order="llamacpp", temperature=1, mirostat=2).stages()) == [
        "temperature",
        "mirostat",
    ]


def test_orders_that_contradict_what_is_set_are_refused():
    for wrong, match in (
        ({"order": "hff"}, "no stage 'hff'; did you mean hf"),
        ({"order": ["temperature", "hf"]}, "'hf' is a whole order and stands alone"),
        ({"order": ["temperature"], "top_k": 3}, "top_k: the order has no stage 'top_k'"),
        ({"order": "vllm", "typical_p": 0.5}, "typical_p: the order 'vllm' has no stage"),
        ({"order": "hf", "presence_penalty": 0.5}, "presence_penalty: the order 'hf' does not have it"),
        ({"order": "llamacpp", "mirostat": 1, "top_k": 3}, "no stage 'top_k' with mirostat"),
        ({"xtc_probability": 0.5}, "set a temperature above 0"),
        ({"dynatemp_range": 0.5}, "set a temperature above 0"),
        ({"forced_eos_ids": [1]}, "set max_tokens"),
    ):
        with pytest.raises(UsageError, match=match):
            SamplingParams(**wrong)


def test_the_rules_of_an_order_take_the_place_of_defaults():
    params = SamplingParams(order="llamacpp", repetition_penalty=1.1)
    assert (params.penalty_scope, params.penalty_last_n) == ("all", 64)
    assert params.non_defaults() == {"order": ("llamacpp",), "repetition_penalty": 1.1}
    assert params.replace(order="pellucid") == SamplingParams(repetition_penalty=1.1)
    everything = params.replace(penalty_last_n=None)
    assert everything.penalty_last_n is None and eval(repr(everything)) == everything  # noqa: S307
    for p in (params, everything):
        assert SamplingParams(**p.to_dict()) == p == pickle.loads(pickle.dumps(p))


def test_sequences_and_functions():
    params = SamplingParams(bad_words_ids=[(3, 1), [3, 1], [2]], sequence_bias={(1, 2): 0.5})
    assert params.bad_words_ids == ((3, 1), (2,)) and params.sequence_bias == (((1, 2), 0.5),)
    assert SamplingParams(**params.to_dict()) == params
    with pytest.raises(UsageError, match="bad_words_ids: token id 3 is not in the vocabulary"):
        params.check_vocabulary(3)
    with pytest.raises(UsageError, match="sequence_bias: token id 2 is not in the vocabulary"):
        params.replace(bad_words_ids=[]).check_vocabulary(2)
    assert SamplingParams(logits_processors=[len]).to_dict()["logits_processors"] == ["len"]
    with pytest.raises(UsageError, match="expected a list of functions"):
        SamplingParams(logits_processors=["len"])
