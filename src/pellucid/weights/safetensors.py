"""safetensors: a JSON header, then the tensors' bytes, memory-mapped. Knows no architecture and no directory.

The rules are those of the reference crate, none looser: a header of at most 100 MB, tensors that follow each
other without gap or overlap and fill the file, sizes that agree with type and shape, UTF-8, no name twice.
Layout: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pellucid.errors import ModelFileError, UnsupportedModelError
from pellucid.weights.json_text import JSONCursor
from pellucid.weights.mapped import MappedFile, quoted
from pellucid.weights.tensor import Format, Tensor

LENGTH_BYTES = 8  # the header's length, uint64, little endian
MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 8
MAX_TENSORS = 1 << 20
MAX_VALUES = 1 << 56  # of one tensor: its bytes and bits still fit 64 bits
FORMATS = {"F32": Format.F32, "F16": Format.F16, "BF16": Format.BF16}
VALUE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor; begin and end count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """A safetensors file, opened: every problem of its structure is raised here, as ModelFileError.

    entries: name -> Entry, of any dtype. metadata: the header's `__metadata__`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.source = MappedFile(self.path)
        self.entries: dict[str, Entry] = {}
        self.metadata: dict[str, str] = {}
        self.data_start = self._read_header()
        self._check_coverage()

    def _read_header(self) -> int:
        size = self.source.size
        if size < LENGTH_BYTES:
            problem = f"needs {LENGTH_BYTES} bytes, the file has {size}; this is no safetensors file"
            raise ModelFileError(self.path, "header length", problem, offset=0)
        length = int.from_bytes(self.source.read(0, LENGTH_BYTES), "little")
        if length > MAX_HEADER_BYTES:
            problem = f"expected at most {MAX_HEADER_BYTES} bytes, found {length}; is this safetensors?"
            raise ModelFileError(self.path, "header length", problem, offset=0)
        if length > size - LENGTH_BYTES:
            problem = f"is {length}, but only {size - LENGTH_BYTES} bytes follow; the file is cut short"
            raise ModelFileError(self.path, "header length", problem, offset=0)
        try:
            text = self.source.read(LENGTH_BYTES, LENGTH_BYTES + length).decode("utf-8")
        except UnicodeDecodeError as error:
            at = LENGTH_BYTES + error.start
            raise ModelFileError(self.path, "header", "expected UTF-8 text", offset=at) from None
        if not text.startswith("{"):
            raise ModelFileError(self.path, "header", "expected '{' at its start", offset=LENGTH_BYTES)
        cursor = JSONCursor(self.path, text, LENGTH_BYTES)
        self._read_members(cursor)
        cursor.finish("header")
        return LENGTH_BYTES + length

    def _read_members(self, cursor: JSONCursor) -> None:
        has_metadata = False
        cursor.expect("{", "header")
        if cursor.accept("}"):
            return
        while True:
            name = cursor.string("tensor name")
            if name in self.entries or (name == "__metadata__" and has_metadata):
                raise cursor.error(f"header key {quoted(name)}", "is there twice")
            if len(self.entries) == MAX_TENSORS:
                raise cursor.error("header", f"expected at most {MAX_TENSORS} tensors")
            cursor.expect(":", f"header key {quoted(name)}")
            if name == "__metadata__":
                has_metadata = True
                self._read_metadata(cursor)
            else:
                self.entries[name] = _read_entry(cursor, f"tensor {quoted(name)}")
            if cursor.accept("}"):
                return
            cursor.expect(",", "header")

    def _read_metadata(self, cursor: JSONCursor) -> None:
        cursor.expect("{", "__metadata__")
        if cursor.accept("}"):
            return
        while True:
            key = cursor.string("__metadata__ key")
            if key in self.metadata:
                raise cursor.error(f"__metadata__ key {quoted(key)}", "is there twice")
            cursor.expect(":", f"__metadata__ key {quoted(key)}")
            self.metadata[key] = cursor.string(f"__metadata__ {quoted(key)}")
            if cursor.accept("}"):
                return
            cursor.expect(",", "__metadata__")

    def _check_coverage(self) -> None:
        """Tensors in order of their bytes: each begins where the last one ended, and all fill the file."""
        position = 0
        for name, entry in sorted(self.entries.items(), key=lambda item: (item[1].begin, item[1].end)):
            field = f"tensor {quoted(name)} data_offsets"
            at = self.data_start + position
            if entry.begin != position or entry.end < entry.begin:
                found = f"[{entry.begin}, {entry.end}]"
                problem = f"expected to begin at {position}, found {found}: a gap or an overlap"
                raise ModelFileError(self.path, field, problem, offset=at)
            if math.prod(size for size in entry.shape if size) > MAX_VALUES:  # beside a 0, too
                problem = f"the product of {list(entry.shape)} is too large"
                raise ModelFileError(self.path, f"tensor {quoted(name)} shape", problem, offset=at)
            num_bytes = math.prod(entry.shape) * VALUE_BYTES[entry.dtype]
            if entry.end - entry.begin != num_bytes:
                problem = (
                    f"{entry.dtype} of shape {list(entry.shape)} takes {num_bytes} bytes, "
                    f"the offsets leave {entry.end - entry.begin}"
                )
                raise ModelFileError(self.path, field, problem, offset=at)
            position = entry.end
        if self.data_start + position != self.source.size:
            problem = f"the tensors end at byte {self.data_start + position}, the file at {self.source.size}"
            raise ModelFileError(self.path, "data", f"{problem}; it is cut short or damaged")

    def tensor(self, name: str) -> Tensor:
        """A tensor that is in `entries`; UnsupportedModelError unless it is F32, F16 or BF16."""
        entry = self.entries[name]
        if entry.dtype not in FORMATS:
            problem = f"dtype {entry.dtype} is not supported; expected one of {', '.join(FORMATS)}"
            raise UnsupportedModelError(self.path, f"tensor {quoted(name)}", problem)
        start, stop = self.data_start + entry.begin, self.data_start + entry.end
        data = self.source.data[start:stop]
        return Tensor(name, entry.shape, FORMATS[entry.dtype], data, self.source, start)


def _read_entry(cursor: JSONCursor, field: str) -> Entry:
    """{"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, in any order, and nothing else."""
    dtype: str | None = None
    shape: list[int] | None = None
    offsets: list[int] | None = None
    cursor.expect("{", field)
    while True:
        key = cursor.string(f"{field} key")
        cursor.expect(":", f"{field} {quoted(key)}")
        if key == "dtype" and dtype is None:
            dtype = cursor.string(f"{field} dtype")
            if dtype not in VALUE_BYTES:
                raise cursor.error(f"{field} dtype", f"{quoted(dtype)} is no known dtype")
        elif key == "shape" and shape is None:
            shape = cursor.unsigned_list(f"{field} shape", MAX_DIMENSIONS)
        elif key == "data_offsets" and offsets is None:
            offsets = cursor.unsigned_list(f"{field} data_offsets", 2)
        else:
            raise cursor.error(field, f"key {quoted(key)} is not expected here, or is there twice")
        if cursor.accept("}"):
            break
        cursor.expect(",", field)
    if dtype is None or shape is None or offsets is None or len(offsets) != 2:
        raise cursor.error(field, "expected a dtype, a shape and two data_offsets")
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])
