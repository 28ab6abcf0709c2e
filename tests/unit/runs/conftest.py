from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory):
    """A tiny llama in GGUF, byte-level BPE vocabulary of 320 tokens (0: BOS, 1: EOS), context 1024."""
    from tiny_checkpoints import make

    return make(tmp_path_factory.mktemp("runs"), "llama", "gguf", "F32")


@pytest.fixture(scope="session")
def llm(tiny_path):
    from pellucid import LLM

    with LLM(tiny_path, num_threads=2, prefill_chunk=7) as loaded:
        yield loaded
