"""Small sound GGUF files, a map of their fields, and damage to them: at a field, at a byte, at the end.

The map is made by a second, naive reader, so that a field which ours forgot to check is still mutated.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from pellucid.weights.tensor import Format

QUANTS = gguf.GGMLQuantizationType
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value type


@dataclass(frozen=True)
class Field:
    """An unsigned little-endian number of `size` bytes at `offset`."""

    name: str
    offset: int
    size: int


def write_seed(path: Path, seed: int) -> bytes:
    """A sound file with every metadata type and several tensor types; `seed` varies the rest."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    if seed % 2:
        writer.add_custom_alignment(64)
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -3)
    writer.add_uint16("u16", 40_000)
    writer.add_int16("i16", -300)
    writer.add_uint32("llama.block_count", 2)
    writer.add_int32("i32", -70_000)
    writer.add_float32("llama.rope.freq_base", 10_000.0)
    writer.add_uint64("u64", 1 << 60)
    writer.add_int64("i64", -(1 << 60))
    writer.add_float64("f64", 0.1)
    writer.add_bool("flag", True)
    writer.add_string("general.name", "näme")
    writer.add_array("tokenizer.ggml.tokens", ["a", "", "ß", "token"])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0, 2.0, 3.0])
    writer.add_array("tokenizer.ggml.token_type", [1, 2, 3, 4])
    writer.add_array("flags", [True, False])
    kinds = [QUANTS[weight_format.label] for weight_format in Format]
    for index, kind in enumerate(rng.permutation(np.array(kinds, dtype=object))[:4]):
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        rows = int(rng.integers(1, 4))
        row_bytes = block_bytes * (1 if block_size > 1 else 8)
        data = rng.integers(0, 256, (rows, row_bytes)).astype(np.uint8)
        writer.add_tensor(f"blk.{index}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


class _Walk:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.fields: list[Field] = []

    def number(self, name: str, size: int) -> int:
        self.fields.append(Field(name, self.at, size))
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def string(self, name: str) -> str:
        length = self.number(f"{name} length", 8)
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def value(self, name: str, kind: int) -> None:
        if kind == 8:
            self.string(name)
        elif kind == 9:
            item = self.number(f"{name} item type", 4)
            for _ in range(self.number(f"{name} count", 8)):
                self.value(f"{name} item", item)
        else:
            self.number(name, SIZES[kind])


def fields_of(data: bytes) -> tuple[list[Field], int]:
    """Every number of the header of a sound file, and the byte after its header."""
    walk = _Walk(data)
    walk.number("magic", 4)
    walk.number("version", 4)
    num_tensors = walk.number("tensor count", 8)
    for _ in range(walk.number("metadata count", 8)):
        key = walk.string("key")
        walk.value(key, walk.number(f"{key} type", 4))
    for _ in range(num_tensors):
        walk.string("tensor name")
        for _ in range(walk.number("rank", 4)):
            walk.number("dimension", 8)
        walk.number("tensor type", 4)
        walk.number("tensor offset", 8)
    return walk.fields, walk.at


def boundary_values(rest: int) -> list[int]:
    """`rest`: the bytes from the field's end to the file's end."""
    return [
        *(0, 1, 2, 3, 31, 255, rest - 1, rest, rest + 1, rest // 8, rest // 8 + 1),
        *(power + step for power in (1 << 31, 1 << 32, 1 << 63) for step in (-1, 0, 1)),
        *((1 << 61) + 1, (1 << 64) - 8, (1 << 64) - 1),
    ]


def put(data: bytearray, field: Field, value: int) -> None:
    value %= 1 << (8 * field.size)
    data[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")


def get(data: bytes, field: Field) -> int:
    return int.from_bytes(data[field.offset : field.offset + field.size], "little")


def mutate(data: bytes, fields: list[Field], header_end: int, rng: random.Random) -> bytes:
    """One to three pieces of damage."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        field = rng.choice(fields)
        rest = len(data) - field.offset - field.size
        kind = rng.randrange(8)
        if kind < 2:
            put(out, field, rng.choice(boundary_values(rest)))
        elif kind == 2:
            put(out, field, rng.randrange(48))
        elif kind == 3:
            put(out, field, get(data, field) + rng.randint(-9, 9))
        elif kind == 4:
            other = rng.choice([f for f in fields if f.size == field.size])
            put(out, field, get(data, other))
            put(out, other, get(data, field))
        elif kind == 5:
            at = rng.randrange(min(header_end, len(out)))
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 6:
            at = rng.randrange(len(out))
            out[at] = rng.randrange(256)
        elif rng.random() < 0.5:
            del out[rng.randrange(len(out)) :]
        else:  # a piece of the header, cut out or doubled
            begin = rng.randrange(header_end)
            end = min(header_end, begin + rng.randrange(1, 40))
            out[begin:end] = b"" if rng.random() < 0.5 else data[begin:end] * 2
        if len(out) < header_end:
            break  # the fields are no longer where the map says
    return bytes(out)


def header(version: int, num_tensors: int, num_keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)
