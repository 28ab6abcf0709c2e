"""A checkpoint in memory, to bend: settings and tensors can be changed one at a time before loading."""

from __future__ import annotations

from typing import Any

import numpy as np
from tiny_checkpoints import write_gguf
from tiny_configs import architecture_of, variant
from tiny_weights import random_weights

from pellucid.errors import ModelFileError
from pellucid.weights.tensor import Format, Tensor


class MemoryCheckpoint:
    """The protocol of `models.base.Checkpoint` over a dictionary of float32 arrays."""

    def __init__(
        self, config: dict[str, Any], tensors: dict[str, np.ndarray], container: str = "safetensors"
    ):
        self.path = "memory"
        self.container = container
        self.architecture = config["general.architecture"] if container == "gguf" else architecture_of(config)
        self.config = config
        self.tensors = tensors
        self.asked: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    @property
    def tensor_names(self) -> list[str]:
        return list(self.tensors)

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        self.asked.append(name)
        if name not in self.tensors:
            raise ModelFileError(self.path, name, "is missing")
        array = np.ascontiguousarray(self.tensors[name], np.float32)
        if shape is not None and array.shape != shape:
            raise ModelFileError(
                self.path, name, f"expected the shape {list(shape)}, found {list(array.shape)}"
            )
        return Tensor(name, array.shape, Format.F32, array.reshape(-1).view(np.uint8))


def hub(name: str) -> MemoryCheckpoint:
    """A variant, as the Hub has it."""
    config = variant(name)
    return MemoryCheckpoint(config, random_weights(config))


def gguf(name: str, folder: Any) -> MemoryCheckpoint:
    """A variant, as its GGUF file says (written and read back once)."""
    from pellucid.weights.checkpoint import open_checkpoint

    config = variant(name)
    checkpoint = open_checkpoint(write_gguf(folder / f"{name}.gguf", config, random_weights(config)))
    tensors = {key: checkpoint.tensor(key).dequantize() for key in checkpoint.tensor_names}
    return MemoryCheckpoint(dict(checkpoint.config), tensors, "gguf")
