"""The protocol of a model file. To add an architecture, copy `llama.py`: settings, weight names, forward.

A model is a page that reads as the paper's figure; every line is an operation on plain arrays, so the
residual stream is a Python value between two lines. It knows no engine, no native code, no sampling.
"""

from __future__ import annotations

from typing import Any, Protocol

from pellucid.ops.base import Ops
from pellucid.registry import Registry
from pellucid.types import Batch, Float32, LayerSpec, Logits
from pellucid.weights.tensor import Tensor


class Checkpoint(Protocol):
    """A model as found on disk, whatever the container (weights/gguf.py, weights/safetensors.py)."""

    path: str
    container: str  # "gguf" or "safetensors"
    architecture: str  # "llama", "qwen2", "qwen3", "gemma3", "gpt2", as registered in `models`
    config: dict[str, Any]  # GGUF metadata (arrays of strings excluded), or config.json

    def __contains__(self, name: str) -> bool: ...

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """The tensor by its name in this container; ModelFileError if absent or not of `shape`."""

    @property
    def tensor_names(self) -> list[str]:
        """The names of all tensors in this container."""


class Model(Protocol):
    """A loaded model, ready to run. From `ops` on: for who looks inside (glass/); final_norm and head alone are
    what turns the residual stream into logits."""

    architecture: str
    layers: list[LayerSpec]  # what each layer asks of the KV cache
    width: int
    vocabulary_size: int
    context_length: int  # the longest sequence that the checkpoint was made for
    ops: Ops
    blocks: Any  # by layer; `output` is the attention's output projection, `attention_post_norm` is there where one is
    attention_scales: list[float]  # by layer, of query times key
    head: Any  # the output projection, for `ops.logits` and `ops.linear`
    unembedding: Any  # its rows [vocabulary, width] as a table, for `ops.embed`
    norm: Any  # of final_norm: the factors [width], or for a layer norm `weight` and `bias`

    def final_norm(self, x: Float32) -> Float32:
        """[rows, width] of the residual stream after the last layer -> what the head reads."""

    def __call__(self, batch: Batch, cache: Any) -> Logits:
        """One pass: logits [num_logits, vocabulary] of batch.logit_rows, or with batch.choice_only bounds of
        them, if the backend has that; fills the cache for all rows."""


class ModelFamily(Protocol):
    """What a model file registers: `models.register("llama")(Llama)`."""

    TINY: dict[str, Any]  # a config.json of a tiny random model, for the contract suite

    @classmethod
    def load(cls, checkpoint: Checkpoint, ops: Ops) -> Model: ...


models: Registry[ModelFamily] = Registry("pellucid.models")
