"""float32 logits against transformers on random weights: all architectures, containers, backends."""

from __future__ import annotations

import numpy as np
import pytest
from backends import NAMES, backend
from passes import all_logits
from tiny_checkpoints import make
from tiny_configs import HUB_ONLY, VARIANTS

from pellucid.models.base import models
from pellucid.weights.checkpoint import open_checkpoint

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")

TOLERANCE = 1e-4  # of the largest |logit|
LENGTHS = [
    1,
    2,
    37,
    300,
]  # 300: past every window, and past position 256, where attention begins a second run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def expected(folder):
    """name -> [(ids, float32 logits [positions, vocabulary])] by transformers, made once."""
    made = {}

    def get(name):
        if name not in made:
            path = make(folder, name, "safetensors")
            loader = transformers.AutoModelForCausalLM
            model = loader.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
            rng = np.random.default_rng(11)
            prompts = [rng.integers(0, model.config.vocab_size, length).tolist() for length in LENGTHS]
            with torch.no_grad():
                made[name] = [(ids, model(torch.tensor([ids])).logits[0].numpy()) for ids in prompts]
        return made[name]

    return get


CASES = [
    pytest.param(name, container, id=f"{name}-{container}")
    for name in VARIANTS
    for container in ("safetensors", "gguf")
    if container == "safetensors" or name not in HUB_ONLY
]


@pytest.mark.parametrize("backend_name", NAMES)
@pytest.mark.parametrize(("name", "container"), CASES)
def test_logits(folder, expected, name, container, backend_name):
    ops = backend(backend_name)
    checkpoint = open_checkpoint(make(folder, name, container))
    model = models[checkpoint.architecture].load(checkpoint, ops)
    for ids, theirs in expected(name):
        if len(ids) > 100 and (container, backend_name) == ("gguf", "reference"):
            continue  # slow, and the same weights as in safetensors
        ours = all_logits(model, ops, ids, kv_format="f32")
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def test_these_weights_would_show_an_error(folder, expected):
    """Attention is far from uniform: without its past, the last position's logits are others."""
    for name in models:
        ids, theirs = expected(name)[-1]
        ops = backend("reference")
        checkpoint = open_checkpoint(make(folder, name, "safetensors"))
        alone = all_logits(models[name].load(checkpoint, ops), ops, ids[-1:])
        assert np.abs(alone[0] - theirs[-1]).max() > 0.02 * np.abs(theirs).max()
