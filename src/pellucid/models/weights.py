"""The tensors of a checkpoint by our nouns ("query", "gate"), whatever its container calls them.

A map gives for each noun the stem of its name in GGUF and on the Hub; `{}` stands for the layer's index,
and ".weight" or ".bias" follows. Each shape is checked when a tensor is taken, and each tensor taken is
noted, so that a tensor that nobody asked for (a feature that we do not run) is refused at the end rather
than ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from pellucid.errors import ModelFileError, UnsupportedModelError
from pellucid.models.base import Checkpoint
from pellucid.ops.base import Ops
from pellucid.types import Float32
from pellucid.weights.tensor import Tensor

Names = Mapping[str, tuple[str, str]]

DECODER: Final = {
    "embedding": ("token_embd", "embed_tokens"),
    "attention_norm": ("blk.{}.attn_norm", "layers.{}.input_layernorm"),
    "query": ("blk.{}.attn_q", "layers.{}.self_attn.q_proj"),
    "key": ("blk.{}.attn_k", "layers.{}.self_attn.k_proj"),
    "value": ("blk.{}.attn_v", "layers.{}.self_attn.v_proj"),
    "attention_output": ("blk.{}.attn_output", "layers.{}.self_attn.o_proj"),
    "mlp_norm": ("blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"),
    "gate": ("blk.{}.ffn_gate", "layers.{}.mlp.gate_proj"),
    "up": ("blk.{}.ffn_up", "layers.{}.mlp.up_proj"),
    "down": ("blk.{}.ffn_down", "layers.{}.mlp.down_proj"),
    "norm": ("output_norm", "norm"),
}

# Names of the Hub's text models begin with one of these, by the class that saved them.
DECODER_PREFIXES: Final = ("model.", "", "model.language_model.", "language_model.model.")

# Tensors that change nothing: precomputed tables of older files (weights/checkpoint.py leaves out the Hub's),
# and the parts of image-and-text checkpoints that text does not pass through.
_IGNORED_ENDS: Final = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "attn_rot_embd.weight")
_IGNORED_STARTS: Final = (
    "vision_tower.",
    "model.vision_tower.",
    "multi_modal_projector.",
    "model.multi_modal_projector.",
)


class Weights:
    """Tensors by noun, for one model file's `load`."""

    def __init__(
        self, checkpoint: Checkpoint, ops: Ops, names: Names, prefixes: Iterable[str] = DECODER_PREFIXES
    ):
        self.checkpoint = checkpoint
        self.ops = ops
        self.is_gguf = checkpoint.container == "gguf"
        self._names = names
        self._taken: set[str] = set()
        self._prefix = "" if self.is_gguf else self._find_prefix(tuple(prefixes))

    # --- what a model asks for ------------------------------------------------------------------------
    def tensor(self, noun: str, *shape: int, layer: int | None = None) -> Tensor:
        """The weight of this noun, of exactly this shape. ModelFileError if it is absent or has another."""
        return self._take(self.name(noun, layer), shape)

    def vector(self, noun: str, size: int, layer: int | None = None, part: str = "weight") -> Float32:
        """float32 [size], in memory of its own."""
        return self._take(self.name(noun, layer, part), (size,)).dequantize()

    def matrix(
        self, noun: str, outputs: int, inputs: int, layer: int | None = None, *, bias: bool | None = False
    ) -> Any:
        """The weight [outputs, inputs] in the form that the backend multiplies. bias: True must be there,
        False must not, None is taken where it is there."""
        return self.ops.matrix(
            self.tensor(noun, outputs, inputs, layer=layer), self.optional_bias(noun, outputs, layer, bias)
        )

    def query_key_value(
        self, query_width: int, kv_width: int, inputs: int, layer: int, *, bias: bool | None = False
    ) -> dict[str, Any]:
        """The matrices "query", "key" and "value". llama.cpp's converter can write them as one, in this
        order (`--fuse-qkv`)."""
        widths = {"query": query_width, "key": kv_width, "value": kv_width}
        fused = f"blk.{layer}.attn_qkv"
        if not self.is_gguf or f"{fused}.weight" not in self.checkpoint:
            return {noun: self.matrix(noun, rows, inputs, layer, bias=bias) for noun, rows in widths.items()}
        total = query_width + 2 * kv_width
        weight = self._take(f"{fused}.weight", (total, inputs))
        biases = self._optional(f"{fused}.bias", total, bias)
        matrices, start = {}, 0
        for noun, rows in widths.items():
            part = None if biases is None else biases[start : start + rows]
            matrices[noun] = self.ops.matrix(weight.rows(start, start + rows), part)
            start += rows
        return matrices

    def optional_bias(self, noun: str, size: int, layer: int | None, bias: bool | None) -> Float32 | None:
        return self._optional(self.name(noun, layer, "bias"), size, bias)

    def embedding(self, width: int) -> Tensor:
        """The embedding [vocabulary, width]; the vocabulary's size is the table's own."""
        name = self.name("embedding")
        table = self.checkpoint.tensor(name)
        if len(table.shape) != 2 or table.shape[1] != width or table.shape[0] < 1:
            raise ModelFileError(
                self.checkpoint.path,
                name,
                f"expected the shape [vocabulary, {width}], found {list(table.shape)}",
            )
        self._taken.add(name)
        return table

    def head(self, embedding: Tensor, tied: bool, name: str = "lm_head.weight") -> tuple[Any, Any]:
        """(the output projection [vocabulary, width], the same as a table of rows). GGUF ties it to the embedding
        where it has none of its own; elsewhere the settings say."""
        name = "output.weight" if self.is_gguf else name
        if self._prefix.endswith("language_model.model."):  # image-and-text checkpoints before transformers 5
            name = f"{self._prefix.removesuffix('model.')}{name}"
        present = name in self.checkpoint
        weight = embedding
        if present or not (self.is_gguf or tied):
            weight = self._take(name, embedding.shape)
            if tied and not self.is_gguf and not np.array_equal(weight.data, embedding.data):
                raise ModelFileError(
                    self.checkpoint.path,
                    name,
                    "differs from the embedding, but tie_word_embeddings says that they are one; "
                    "if the model has a head of its own, set tie_word_embeddings to false in config.json",
                )
        return self.ops.head(weight), self.ops.embedding(weight)

    def named(self, name: str, *shape: int) -> Tensor | None:
        """A tensor by its very name, or None where the file has none."""
        return self._take(name, shape) if name in self.checkpoint else None

    def finish(self) -> None:
        """Refuse a checkpoint that holds a tensor which nobody took."""
        for name in self.checkpoint.tensor_names:
            if name in self._taken or name.endswith(_IGNORED_ENDS) or name.startswith(_IGNORED_STARTS):
                continue
            raise UnsupportedModelError(
                self.checkpoint.path,
                name,
                f"this tensor has no place in a {self.checkpoint.architecture} model",
            )

    def name(self, noun: str, layer: int | None = None, part: str = "weight") -> str:
        """The name in this container."""
        gguf, hub = self._names[noun]
        return f"{self._prefix}{(gguf if self.is_gguf else hub).format(layer)}.{part}"

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        self._taken.add(name)
        return self.checkpoint.tensor(name, shape)

    def _optional(self, name: str, size: int, bias: bool | None) -> Float32 | None:
        """A bias [size]: True must be there, False must not, None is taken where it is there."""
        present = name in self.checkpoint
        if bias is False and present:
            raise UnsupportedModelError(
                self.checkpoint.path, name, "is present, but the model's settings have no bias here"
            )
        return self._take(name, (size,)).dequantize() if bias or present else None

    def _find_prefix(self, prefixes: tuple[str, ...]) -> str:
        stem = self._names["embedding"][1]
        for prefix in prefixes:
            if f"{prefix}{stem}.weight" in self.checkpoint:
                return prefix
        return prefixes[0]  # the error for the missing embedding then shows the usual name


def transposed(weight: Tensor) -> Tensor:
    """A float weight [inputs, outputs] as [outputs, inputs]: a copy in memory, no longer of its file."""
    inputs, outputs = weight.shape
    item = {2: np.uint16, 4: np.uint32}[weight.format.block_bytes]
    turned = np.ascontiguousarray(weight.data.view(item).reshape(inputs, outputs).T)
    return replace(weight, shape=(outputs, inputs), data=turned.reshape(-1).view(np.uint8), source=None)
