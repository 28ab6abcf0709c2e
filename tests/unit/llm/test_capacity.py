import pytest

from pellucid.capacity import kv_bytes_per_token, plan_capacity
from pellucid.errors import UsageError
from pellucid.types import LayerSpec

LAYERS = [LayerSpec(1, 16)] * 3  # K and V: 2 * 16 * 3 = 96 numbers a token
GB = 1 << 30


def plan(model_context=100, **options):
    defaults = dict(
        kv_format="f16",
        context_length=None,
        kv_memory=None,
        max_sequences=4,
        block_size=10,
        machine_memory=GB,
    )
    return plan_capacity(LAYERS, model_context, **(defaults | options))


def test_bytes_per_token():
    assert kv_bytes_per_token(LAYERS, "f32") == 2 * kv_bytes_per_token(LAYERS, "f16") == 96 * 4
    assert kv_bytes_per_token(LAYERS, "bf16") == 96 * 2
    assert kv_bytes_per_token(LAYERS, "q8_0") == 3 * 2 * 34  # 16 values padded to one block of 32
    assert kv_bytes_per_token([LayerSpec(3, 21)], "i16") == 3 * (
        (22 + 32) * 2 + 2 * 4
    )  # padded, and two scales
    assert kv_bytes_per_token([LayerSpec(3, 20)], "f16") == 3 * (20 + 32) * 2  # V is padded to 16


def test_the_models_own_context_when_it_fits():
    capacity = plan()
    assert (capacity.context_length, capacity.context_origin) == (100, "model file")
    assert capacity.num_blocks == 4 * 10  # max_sequences whole contexts
    assert capacity.kv_bytes == 40 * 10 * 192


@pytest.mark.parametrize("context", [1, 9, 10, 11, 100])
def test_a_callers_context_always_has_its_blocks(context):
    capacity = plan(context_length=context, max_sequences=1)
    assert capacity.context_length == context
    assert capacity.context_origin == "caller"
    assert capacity.num_blocks * capacity.block_size >= context


def test_memory_cuts_the_context_and_says_so():
    by_caller = plan(kv_memory=192 * 55)
    assert (by_caller.context_length, by_caller.context_origin) == (50, "caller")
    assert by_caller.kv_bytes <= 192 * 55
    assert "100" in by_caller.context_note
    by_machine = plan(machine_memory=4 * 192 * 55)
    assert (by_machine.context_length, by_machine.context_origin) == (50, "this machine")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context_length": 101}, "longer than the 100 positions"),
        ({"context_length": 60, "kv_memory": 192 * 55}, "at most 50"),
        ({"context_length": 100, "machine_memory": 192 * 50}, "smaller context_length"),
        ({"kv_memory": 100}, "at least 1920"),
    ],
)
def test_what_cannot_be(options, words):
    with pytest.raises(UsageError, match=words):
        plan(**options)
