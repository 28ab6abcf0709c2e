"""Which model, vocabulary and arithmetic this is: what a saved session must agree with to go on with the same bits."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.text.tokenizer import Tokenizer

_SAMPLE = 4096  # bytes of each end of each tensor
_PROBE = 8  # tokens


def fingerprint(llm: LLM) -> dict[str, str | int]:
    """By name of what it is a fingerprint of, the most telling first; computed once for each LLM.

    weights: SHA-256 over name, shape, format, and the first and last 4 KiB of every tensor. tokenizer: over the bytes
    of all tokens, and the special ones. numbers: over the logits of 8 tokens, so that another way of computing
    shows, too.
    """
    known = llm._fingerprint
    if known is None:
        loaded, settings = llm._need(), llm.settings
        model = of_model(llm)
        known = {
            "architecture": model["architecture"],
            "tokenizer": of_tokenizer(llm.tokenizer),
            "weights": model["weights"],
            "backend": str(settings["backend"].value),
            "kv_format": str(settings["kv_format"].value),
            "activations": str(settings["activations"].value),
            "block_size": loaded.capacity.block_size,
            "numbers": _of_numbers(llm),
        }
        llm._fingerprint = known
    return known


def of_model(llm: LLM) -> dict[str, str]:
    """Of these, the architecture and the weights: 4 to 6 ms the first time, while the whole costs a pass, too."""
    known = llm._model_print
    if known is None:
        known = {"architecture": llm._need().model.architecture, "weights": _of_weights(llm)}
        llm._model_print = known
    return known


def of_tokenizer(tokenizer: Tokenizer) -> str:
    """Over the bytes of all tokens, and the special ones: equal where token ids mean the same."""
    total = sha256(tokenizer.join(range(tokenizer.vocabulary_size)))
    total.update(repr((tokenizer.vocabulary_size, sorted(tokenizer.special_ids))).encode())
    return total.hexdigest()


def _of_weights(llm: LLM) -> str:
    checkpoint = llm._need().checkpoint
    total = sha256()
    for name in sorted(checkpoint.tensor_names):
        label, _, _ = checkpoint.stored(name)
        total.update(f"{name}\0{label}\0".encode())
        tensor = checkpoint.tensor(name)
        total.update(f"{tensor.shape}\0".encode())
        total.update(tensor.data[:_SAMPLE].tobytes() + tensor.data[-_SAMPLE:].tobytes())
        tensor.release()
    return total.hexdigest()


def _of_numbers(llm: LLM) -> str:
    ids = np.linspace(
        0, llm._need().model.vocabulary_size - 1, min(_PROBE, llm.context_length), dtype=np.int32
    )
    return sha256(llm.logits(ids.tolist()).tobytes()).hexdigest()
