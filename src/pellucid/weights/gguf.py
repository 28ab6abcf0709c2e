"""GGUF versions 2 and 3, little endian: metadata and tensors of one mapped file. Knows no architecture.

Every count, length, offset and type is checked against the file before it is used, in Python's unbounded
integers; nothing is allocated by a number that the file claims but does not hold.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import _native
from pellucid.errors import ModelFileError, UnsupportedModelError
from pellucid.types import Array, Bytes
from pellucid.weights import iq4_nl
from pellucid.weights.ggml_types import BLOCK_LAYOUTS
from pellucid.weights.mapped import MappedFile, quoted
from pellucid.weights.strings import StringArray
from pellucid.weights.tensor import Format, Tensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# Bounds that no sound file comes near.
MAX_ENTRIES = 65_536  # metadata keys; tensors
MAX_NAME_BYTES = 65_535  # of a key or of a tensor's name
MAX_STRING_BYTES = 64 << 20  # of one text value: a whole tokenizer.json may be one
MAX_ALIGNMENT = 1 << 20
MAX_DIMENSIONS = 4
# Least bytes of an entry. Key: length, type, 1 byte. Tensor: name length, rank, a dimension, type, offset
MIN_KEY_BYTES, MIN_TENSOR_BYTES = 13, 32

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")
UINT32, BOOL, STRING, ARRAY = 4, 7, 8, 9
SCALARS: dict[int, tuple[struct.Struct, str]] = {  # value type -> (one in the file, dtype of many)
    0: (struct.Struct("<B"), "<u1"),
    1: (struct.Struct("<b"), "<i1"),
    2: (struct.Struct("<H"), "<u2"),
    3: (struct.Struct("<h"), "<i2"),
    UINT32: (U32, "<u4"),
    5: (struct.Struct("<i"), "<i4"),
    6: (struct.Struct("<f"), "<f4"),
    BOOL: (struct.Struct("<B"), "<u1"),
    10: (U64, "<u8"),
    11: (struct.Struct("<q"), "<i8"),
    12: (struct.Struct("<d"), "<f8"),
}
FORMATS = {weight_format.ggml_type: weight_format for weight_format in Format}


class GGUFFile:
    """A GGUF file, opened: every problem of its structure is raised here, as ModelFileError.

    metadata: key -> int, float, bool, str, a NumPy view of a numeric array, or a StringArray.
    tensors: name -> Tensor; shapes outermost first (the file has them innermost first).
    unsupported: name -> type, for the sound tensors of types that pellucid does not compute with.
    iq4_nl: name -> (shape, bytes), for those of them that can be read as another type.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.source = MappedFile(self.path)
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.unsupported: dict[str, str] = {}
        self.iq4_nl: dict[str, tuple[tuple[int, ...], Bytes]] = {}
        reader = _Reader(self.source)
        self.version, num_tensors, num_keys = reader.header()
        for _ in range(num_keys):
            key, value = reader.entry(self.metadata)
            self.metadata[key] = value
        self.alignment = reader.alignment(self.metadata)
        infos = reader.tensor_infos(num_tensors)
        self.data_start = -(-reader.offset // self.alignment) * self.alignment
        self._place(infos)

    def _place(self, infos: dict[str, tuple[tuple[int, ...], int, int, int]]) -> None:
        """Bytes for every tensor: aligned, inside of the file, shared with no other."""
        previous_end, previous_name = 0, ""
        for name, (shape, type_id, start, at) in sorted(infos.items(), key=lambda item: item[1][2]):
            label, block_size, block_bytes = BLOCK_LAYOUTS[type_id]
            num_bytes = math.prod(shape) // block_size * block_bytes
            first, end = self.data_start + start, self.data_start + start + num_bytes
            where = f"tensor {quoted(name)}"
            if start % self.alignment:
                problem = f"expected a multiple of the alignment {self.alignment}, found {start}"
                raise ModelFileError(self.path, f"{where} offset", problem, offset=at)
            if end > self.source.size:
                size = self.source.size
                problem = f"needs bytes {first} to {end}, the file has {size}; it is cut short or damaged"
                raise ModelFileError(self.path, f"{where} data", problem, offset=at)
            if start < previous_end:
                problem = f"its data overlaps that of tensor {quoted(previous_name)}"
                raise ModelFileError(self.path, f"{where} offset", problem, offset=at)
            previous_end, previous_name = start + num_bytes, name
            if type_id in FORMATS:
                data = self.source.data[first:end]
                self.tensors[name] = Tensor(name, shape, FORMATS[type_id], data, self.source, first)
            else:
                self.unsupported[name] = label
                if label == iq4_nl.LABEL:
                    self.iq4_nl[name] = shape, self.source.data[first:end]

    def require_supported(self) -> None:
        """UnsupportedModelError if a tensor is of a type that pellucid cannot read."""
        for name, label in self.unsupported.items():
            if name in self.iq4_nl:
                continue
            known = ", ".join(weight_format.label for weight_format in Format)
            problem = f"type {label} is not supported; use a file with these types: {known}"
            raise UnsupportedModelError(self.path, f"tensor {quoted(name)}", problem)


class _Reader:
    """Reads a header from its start to its end; `offset` is the byte to read next."""

    def __init__(self, source: MappedFile) -> None:
        self.source = source
        self.size = source.size
        self.offset = 0
        self.types: dict[str, int] = {}  # metadata key -> value type

    def error(self, field: str, problem: str, at: int) -> ModelFileError:
        return ModelFileError(self.source.path, field, problem, offset=at)

    def take(self, num_bytes: int, field: str) -> int:
        """Where the next `num_bytes` begin; they are in the file."""
        at = self.offset
        if num_bytes > self.size - at:
            raise self.error(field, f"needs {num_bytes} bytes, the file has {self.size - at} left", at)
        self.offset = at + num_bytes
        return at

    def number(self, codec: struct.Struct, field: str) -> Any:
        return codec.unpack_from(self.source.view, self.take(codec.size, field))[0]

    def string(self, field: str, limit: int) -> str:
        at = self.offset
        length = self.number(U64, f"{field} length")
        if length > limit:
            raise self.error(f"{field} length", f"expected at most {limit} bytes, found {length}", at)
        start = self.take(length, field)
        try:
            return self.source.read(start, start + length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(field, "expected UTF-8 text", start + error.start) from None

    def header(self) -> tuple[int, int, int]:
        """(version, number of tensors, number of metadata keys)"""
        if self.source.read(0, min(4, self.size)) != MAGIC:
            raise self.error("magic", "expected 'GGUF'; this is not a GGUF file", 0)
        self.offset = 4
        version = self.number(U32, "version")
        if version not in VERSIONS:
            swapped = int.from_bytes(U32.pack(version), "big")
            if swapped in VERSIONS:
                kind, remedy = "a big-endian file", "use a little-endian one"
            else:
                kind, remedy = f"version {version}", "convert the model again with a current converter"
            raise UnsupportedModelError(
                self.source.path, "version", f"expected GGUF 2 or 3, found {kind}; {remedy}", offset=4
            )
        num_tensors = self.entries("tensor count", MIN_TENSOR_BYTES)
        return version, num_tensors, self.entries("metadata count", MIN_KEY_BYTES)

    def entries(self, field: str, least_bytes: int) -> int:
        at = self.offset
        count: int = self.number(U64, field)
        if count > MAX_ENTRIES:
            raise self.error(field, f"expected at most {MAX_ENTRIES}, found {count}", at)
        if count * least_bytes > self.size - self.offset:
            problem = f"{count} entries cannot fit into the {self.size - self.offset} bytes left"
            raise self.error(field, problem, at)
        return count

    def entry(self, earlier: dict[str, Any]) -> tuple[str, Any]:
        at = self.offset
        key = self.string(f"metadata key {len(earlier)}", MAX_NAME_BYTES)
        if key in earlier:
            raise self.error(f"metadata key {quoted(key)}", "is there twice", at)
        field = f"metadata {quoted(key)}"
        value_type = self.types[key] = self.number(U32, f"{field} type")
        if value_type == STRING:
            return key, self.string(field, MAX_STRING_BYTES)
        if value_type == ARRAY:
            return key, self.array(field)
        if value_type not in SCALARS:
            raise self.error(f"{field} type", f"expected 0 to 12, found {value_type}", self.offset - 4)
        value = self.number(SCALARS[value_type][0], field)
        if value_type == BOOL:
            if value > 1:
                raise self.error(field, f"expected a boolean of 0 or 1, found {value}", self.offset - 1)
            return key, bool(value)
        return key, value

    def array(self, field: str) -> Array | StringArray:
        """Numbers as a view of the file, strings as a StringArray.

        Arrays of arrays are refused: no model has them.
        """
        at = self.offset
        item_type = self.number(U32, f"{field} item type")
        count = self.number(U64, f"{field} count")
        if item_type == STRING:
            return self.strings(field, count)
        if item_type not in SCALARS:
            kind = "an array in an array" if item_type == ARRAY else str(item_type)
            problem = f"expected a number, boolean or string type, found {kind}"
            raise self.error(f"{field} item type", problem, at)
        dtype = np.dtype(SCALARS[item_type][1])
        start = self.take(count * dtype.itemsize, field)
        values: Array = self.source.data[start : self.offset].view(dtype)
        if item_type != BOOL:
            return values
        if count and int(values.max()) > 1:
            at = start + int(np.argmax(values > 1))
            raise self.error(field, f"expected booleans of 0 or 1, found {self.source.data[at]}", at)
        return values.view(np.bool_)

    def strings(self, field: str, count: int) -> StringArray:
        start = self.offset
        if count * 8 > self.size - start:
            problem = f"{count} strings cannot fit into the {self.size - start} bytes left"
            raise self.error(f"{field} count", problem, start - 8)
        end, num_read = _native.scan_strings(self.source.data, start, count)
        if num_read != count:
            problem = f"string {num_read} of {count} runs past the end of the file ({self.size} bytes)"
            raise self.error(field, problem, end)
        self.offset = end
        return StringArray(self.source.data, start, count)

    def alignment(self, metadata: dict[str, Any]) -> int:
        value: int = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if self.types.get("general.alignment", UINT32) != UINT32:
            raise ModelFileError(self.source.path, "general.alignment", "expected a uint32, found another")
        if not 1 <= value <= MAX_ALIGNMENT or value & (value - 1):
            problem = f"expected a power of two from 1 to {MAX_ALIGNMENT}, found {value}"
            raise ModelFileError(self.source.path, "general.alignment", problem)
        return value

    def tensor_infos(self, num_tensors: int) -> dict[str, tuple[tuple[int, ...], int, int, int]]:
        """name -> (shape, type id, offset in the data section, byte where that offset is told)"""
        infos: dict[str, tuple[tuple[int, ...], int, int, int]] = {}
        for index in range(num_tensors):
            at = self.offset
            name = self.string(f"tensor {index} name", MAX_NAME_BYTES)
            field = f"tensor {quoted(name)}"
            if name in infos:
                raise self.error(field, "is there twice", at)
            shape = self.shape(field)
            at = self.offset
            type_id = self.number(U32, f"{field} type")
            if type_id not in BLOCK_LAYOUTS:
                raise self.error(f"{field} type", f"{type_id} is no known tensor type", at)
            label, block_size, _ = BLOCK_LAYOUTS[type_id]
            if shape[-1] % block_size:
                problem = f"rows of {label} need a multiple of {block_size} values, found {shape[-1]}"
                raise self.error(f"{field} dimensions", problem, at)
            start = self.number(U64, f"{field} offset")
            infos[name] = (shape, type_id, start, self.offset - 8)
        return infos

    def shape(self, field: str) -> tuple[int, ...]:
        at = self.offset
        num_dimensions = self.number(U32, f"{field} number of dimensions")
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            problem = f"expected 1 to {MAX_DIMENSIONS}, found {num_dimensions}"
            raise self.error(f"{field} number of dimensions", problem, at)
        innermost_first = [self.number(U64, f"{field} dimension {i}") for i in range(num_dimensions)]
        if 0 in innermost_first:
            raise self.error(f"{field} dimensions", "expected at least 1 of each, found 0", at + 4)
        return tuple(reversed(innermost_first))
