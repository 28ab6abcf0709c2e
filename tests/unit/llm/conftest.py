from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory):
    """A tiny llama in GGUF, byte-level BPE vocabulary of 320 tokens (0: BOS, 1: EOS), context 1024."""
    from tiny_checkpoints import make

    return make(tmp_path_factory.mktemp("llm"), "llama", "gguf", "F32")


@pytest.fixture(scope="session", params=["reference", "cpu"])
def llm(request: pytest.FixtureRequest, tiny_path):
    from pellucid import LLM

    with LLM(tiny_path, backend=request.param, prefill_chunk=7, num_threads=2) as loaded:
        yield loaded


@pytest.fixture
def fresh(tiny_path):
    """One of its own, for tests that break things."""
    from pellucid import LLM

    with LLM(tiny_path, backend="reference", context_length=64) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny model with each chat template, loaded once."""
    from chat_models import make_chat_model

    from pellucid import LLM

    loaded: dict[str, LLM] = {}

    def get(name: str) -> LLM:
        if name not in loaded:
            loaded[name] = LLM(make_chat_model(tmp_path_factory.mktemp("session"), name), num_threads=2)
        return loaded[name]

    yield get
    for llm in loaded.values():
        llm.close()
