"""Hub checkpoints in float16 and bfloat16, against transformers that holds the same weights in float32."""

from __future__ import annotations

import numpy as np
import pytest
from backends import NAMES, backend
from passes import all_logits
from tiny_configs import variant
from tiny_tokenizers import write_tokenizer
from tiny_weights import random_weights

from pellucid.models.base import models
from pellucid.weights.checkpoint import open_checkpoint

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")

NAMES_OF_MODELS = ["llama", "llama-yarn", "mistral", "mistral-no-window", "qwen2", "qwen2-window", "qwen3",
                   "gemma3", "gemma3-rope-parameters", "gpt2"]  # fmt: skip


@pytest.mark.parametrize("backend_name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES_OF_MODELS)
def test_half_precision_weights(tmp_path, name, dtype, backend_name):
    """Saved by transformers itself, in parts, so with its own names, its own config.json and an index."""
    config = variant(name)
    loader = transformers.AutoModelForCausalLM
    model = loader.from_config(transformers.AutoConfig.for_model(**config), dtype=torch.float32)
    weights = {key: torch.tensor(value) for key, value in random_weights(config, seed=4).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size="200KB")
    write_tokenizer(tmp_path, config["vocab_size"])
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = loader.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()

    ids = np.random.default_rng(1).integers(0, config["vocab_size"], 80).tolist()
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    ops = backend(backend_name)
    checkpoint = open_checkpoint(tmp_path)
    ours = all_logits(models[checkpoint.architecture].load(checkpoint, ops), ops, ids, kv_format="f32")
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
