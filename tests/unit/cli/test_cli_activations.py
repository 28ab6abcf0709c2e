"""`--activations`: it arrives, a recorded run is replayed with it, and bench tells it."""

from __future__ import annotations

import json

import pytest
from tiny_checkpoints import make

ARGS = ("Once upon", "--max-tokens", "6", "--temperature", "1", "--seed", "3", "--ignore-eos")


@pytest.fixture(scope="module")
def bf16(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bf16"), "llama", "gguf", "BF16")


def test_it_is_shown_recorded_and_replayed(invoke, bf16, tmp_path):
    path = tmp_path / "run"
    made = invoke("generate", "-m", bf16, "--activations", "bf16", *ARGS, "--record", path, "--show-settings")
    assert made.exit_code == 0, made.stderr
    (row,) = (line.split(maxsplit=2) for line in made.stderr.splitlines() if line.startswith("activations"))
    assert row == ["activations", "bf16", "command line"]
    told = invoke("replay", path)
    assert told.exit_code == 0 and told.stdout.startswith("equal: 6 tokens"), told.stdout
    other = invoke("replay", path, "--activations", "f32").stdout
    assert "differs from the run: activations: bf16 then, f32 now" in other


def test_bench_tells_it(invoke, bf16):
    args = ("--prefill", "8", "--decode", "4", "--runs", "1", "--threads", "1", "--json")
    for more, said in (((), "f32"), (("--activations", "bf16"), "bf16")):
        told = invoke("bench", "-m", bf16, *args, *more)
        assert told.exit_code == 0, told.stderr
        assert json.loads(told.stdout)["model"]["activations"] == said


@pytest.mark.parametrize(
    ("value", "words"),
    [("bf16", "activations: bf16 is for matrices in BF16"), ("f16", "'f16' is not one of 'f32', 'bf16'")],
)
def test_what_cannot_be_is_refused(invoke, tiny, value, words):
    told = invoke("generate", "-m", tiny, "--activations", value, "hello")
    assert told.exit_code == 2 and words in told.stderr
