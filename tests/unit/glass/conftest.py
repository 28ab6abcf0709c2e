from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def glass_path(tmp_path_factory: pytest.TempPathFactory):
    """A tiny llama in GGUF, byte-level BPE vocabulary of 320 tokens (0: BOS, 1: EOS), context 1024."""
    from tiny_checkpoints import make

    return make(tmp_path_factory.mktemp("glass"), "llama", "gguf", "F32")


@pytest.fixture
def glass_llm(glass_path):
    """A fresh one, so that no prefix is cached."""
    from pellucid import LLM

    with LLM(glass_path, prefill_chunk=7, num_threads=1) as loaded:
        yield loaded
