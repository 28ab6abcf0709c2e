"""Captured activations against transformers' hidden_states and attentions, on random float32 weights."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_checkpoints import make
from tiny_configs import VARIANTS

from pellucid import LLM, Capture

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")

TOLERANCE = 1e-4  # of the largest value
IDS = np.random.default_rng(21).integers(0, 320, 60).tolist()  # past every window


@pytest.fixture(scope="module", params=list(VARIANTS))
def both(request, tmp_path_factory):
    path = make(tmp_path_factory.mktemp("hidden"), request.param, "safetensors")
    loader = transformers.AutoModelForCausalLM
    model = loader.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = model(torch.tensor([IDS]), output_hidden_states=True, output_attentions=True)
    with LLM(path, num_threads=2, prefill_chunk=16) as llm:
        yield llm, theirs


def close(ours, theirs):
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def test_hidden_states(both):
    """Theirs are the stream before each layer and, last, what comes out of the final norm."""
    llm, theirs = both
    captured = llm.trace(IDS, Capture(sites=("resid_pre", "resid_post", "final")))
    states = [state[0].numpy() for state in theirs.hidden_states]
    layers = len(llm.model.layers)
    assert len(states) == layers + 1
    for layer in range(layers):
        assert close(captured.at("resid_pre", layer), states[layer]), layer
        if layer > 0:
            assert close(captured.at("resid_post", layer - 1), states[layer]), layer
    assert close(captured.at("final", 0), states[-1])


def test_attentions(both):
    llm, theirs = both
    for layer in range(len(llm.model.layers)):
        assert np.abs(llm.attention(IDS, layer) - theirs.attentions[layer][0].numpy()).max() <= TOLERANCE, (
            layer
        )
