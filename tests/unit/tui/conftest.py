from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def step_path(tmp_path_factory: pytest.TempPathFactory):
    """A tiny llama in GGUF, byte-level BPE vocabulary of 320 tokens (0: BOS, 1: EOS), context 1024."""
    from tiny_checkpoints import make

    return make(tmp_path_factory.mktemp("tui"), "llama", "gguf", "F32")


@pytest.fixture(scope="session")
def step_llm(step_path):
    from pellucid import LLM

    with LLM(step_path, prefill_chunk=16, num_threads=1) as loaded:
        yield loaded


@pytest.fixture
def make_debugger(step_llm):
    """make_debugger(prompt, **sampling) -> a Debugger of it, prepared."""
    from pellucid.cli._options import parse_value
    from pellucid.tui.debugger import Debugger

    def make(prompt="the quick brown fox", **sampling):
        generation = step_llm.begin(prompt, ignore_eos=True, **sampling)
        debugger = Debugger(step_llm, generation, parse_value)
        for _ in debugger.prepare():
            pass
        return debugger

    return make
