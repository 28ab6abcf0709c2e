"""A weight as it lies in its file: bytes, format, shape. Knows no container and no kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from pellucid.types import Bytes, Float32
from pellucid.weights.mapped import MappedFile


class Format(Enum):
    """Weight formats: (name, elements in a block, bytes of a block, GGUF type id).

    Layouts: ggml's block structs (ggml-common.h), restated in native/quant/.
    """

    F32 = ("F32", 1, 4, 0)
    F16 = ("F16", 1, 2, 1)
    BF16 = ("BF16", 1, 2, 30)
    Q4_0 = ("Q4_0", 32, 18, 2)
    Q4_1 = ("Q4_1", 32, 20, 3)
    Q5_0 = ("Q5_0", 32, 22, 6)
    Q5_1 = ("Q5_1", 32, 24, 7)
    Q8_0 = ("Q8_0", 32, 34, 8)
    Q2_K = ("Q2_K", 256, 84, 10)
    Q3_K = ("Q3_K", 256, 110, 11)
    Q4_K = ("Q4_K", 256, 144, 12)
    Q5_K = ("Q5_K", 256, 176, 13)
    Q6_K = ("Q6_K", 256, 210, 14)

    def __init__(self, label: str, block_size: int, block_bytes: int, ggml_type: int) -> None:
        self.label = label
        self.block_size = block_size
        self.block_bytes = block_bytes
        self.ggml_type = ggml_type

    @property
    def is_float(self) -> bool:
        return self.block_size == 1


@dataclass(frozen=True, eq=False)
class Tensor:
    """One named tensor; `data` is a view of the memory-mapped file (never copied here).

    shape: row-major, outermost first; a matrix is [outputs, inputs] and each of its rows is contiguous in
    `data`. Quantised blocks run along the last axis. data: uint8 [num_bytes], at any alignment.
    source: the file that `data` lies in, from byte `offset` on; None for a tensor made in memory.
    """

    name: str
    shape: tuple[int, ...]
    format: Format
    data: Bytes
    source: MappedFile | None = field(default=None, repr=False)
    offset: int = 0

    def __post_init__(self) -> None:
        """Who packs a mapped tensor gives its pages back: bytes elsewhere in memory would be lost by that."""
        if self.source is not None and not self.source.holds(self.data, self.offset):
            raise ValueError(f"{self.name}: its data does not lie in its source at byte {self.offset}")

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.format.block_size * self.format.block_bytes

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of a matrix, as a view. IndexError if they are not all there."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"{self.name}: rows [{start}, {stop}) of {self.shape[0]}")
        n = self.row_bytes
        return replace(
            self,
            shape=(stop - start, self.shape[-1]),
            data=self.data[start * n : stop * n],
            offset=self.offset + start * n,
        )

    def dequantize(self) -> Float32:
        """All values as float32 [shape], bit-equal to the `gguf` package's reference."""
        from pellucid import _native

        out = np.empty(self.num_values, np.float32)
        _native.dequantize(self.format.label, self.data, out)
        return out.reshape(self.shape)

    def release(self) -> None:
        """Give back the memory that reading `data` took (pages of the file's map); it can still be read."""
        if self.source is not None:
            self.source.release(self.offset, self.offset + len(self.data))
