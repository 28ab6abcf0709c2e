"""GGUF files: what was written comes back; what is unsound is refused by one line that names the field."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from pellucid.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError
from pellucid.weights.gguf import GGUFFile
from pellucid.weights.strings import StringArray

SHARED = Path(os.environ.get("PELLUCID_SHARED", Path(__file__).parents[4] / "shared"))
U32, F32, STRING, ARRAY, BOOL = 4, 6, 8, 9, 7


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def info(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def build(
    keys: list[bytes], infos: list[bytes], data: bytes = b"", *, version: int = 3, alignment: int = 32
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data


def refusal(path: Path, content: bytes) -> ModelFileError:
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        GGUFFile(path)
    assert "\n" not in str(caught.value)
    return caught.value


VALUES: dict[str, tuple[str, Any]] = {
    "u8": ("add_uint8", 255),
    "i8": ("add_int8", -128),
    "u16": ("add_uint16", 65_535),
    "i16": ("add_int16", -32_768),
    "u32": ("add_uint32", (1 << 32) - 1),
    "i32": ("add_int32", -(1 << 31)),
    "u64": ("add_uint64", (1 << 64) - 1),
    "i64": ("add_int64", -(1 << 63)),
    "f32": ("add_float32", 0.5),
    "f64": ("add_float64", 0.1),
    "yes": ("add_bool", True),
    "no": ("add_bool", False),
    "text": ("add_string", 'ä\n"\x00\U0001f600'),
}


def test_round_trip_of_scalars(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, (method, value) in VALUES.items():
        getattr(writer, method)(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata = GGUFFile(path).metadata
    for name, (_, value) in VALUES.items():
        assert metadata[name] == value and type(metadata[name]) is type(value)
    assert metadata["general.architecture"] == "llama"
    path.write_bytes(build([key("empty", STRING, text("")), text("") + struct.pack("<IB", 0, 3)], []))
    assert GGUFFile(path).metadata == {"empty": "", "": 3}


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "u8", "i8", "f8", "?"])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_round_trip_of_arrays_at_any_alignment(tmp_path: Path, dtype: str, pad: int) -> None:
    codes = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "?", "", "", "u8", "i8", "f8"]
    values = np.random.default_rng(1).integers(0, 2, 50).astype(dtype)
    head = struct.pack("<IQ", codes.index(dtype), len(values))
    keys = [key("x" * (1 + pad), U32, bytes(4)), key("k", ARRAY, head + values.tobytes())]
    (tmp_path / "m.gguf").write_bytes(build(keys, []))
    found = GGUFFile(tmp_path / "m.gguf").metadata["k"]
    assert found.dtype == values.dtype and (found == values).all()
    assert not found.flags.writeable


def test_strings_are_lazy_and_whole(tmp_path: Path) -> None:
    pieces = [b"", b"a", "ß".encode(), b"\xff\xfe", b"x" * 10_000, b""]
    value = struct.pack("<IQ", STRING, len(pieces)) + b"".join(text(piece) for piece in pieces)
    path = tmp_path / "m.gguf"
    path.write_bytes(build([key("k", ARRAY, value), key("after", U32, struct.pack("<I", 9))], []))
    file = GGUFFile(path)
    array = file.metadata["k"]
    assert isinstance(array, StringArray) and array._spans is None
    assert len(array) == array.count == len(pieces) and list(array) == pieces
    assert [array[i] for i in range(len(pieces))] == pieces and array[-2] == pieces[-2]
    starts, lengths = array.spans()
    assert [bytes(array.buffer[s : s + n]) for s, n in zip(starts, lengths, strict=True)] == pieces
    assert file.metadata["after"] == 9
    with pytest.raises(IndexError):
        array[len(pieces)]


def test_tensors_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(128)
    arrays = {"a": rng.normal(size=(3, 5)), "b": rng.normal(size=7), "c": rng.normal(size=(2, 3, 2, 4))}
    for name, array in arrays.items():
        writer.add_tensor(name, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(path)
    assert file.alignment == 128 and list(file.tensors) == list(arrays)
    for name, array in arrays.items():
        assert file.tensors[name].shape == array.shape
        assert (file.tensors[name].dequantize() == array.astype(np.float32)).all()
        assert file.tensors[name].offset % 128 == 0


def test_version_2(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(build([], [info("t", (4,), 0, 0)], bytes(16), version=2))
    assert GGUFFile(tmp_path / "m.gguf").tensors["t"].shape == (4,)


GOOD = info("t", (32, 2), 8, 0)  # Q8_0, two rows of 34 bytes
DATA = bytes(96)
TEN_TIMES = struct.pack("<I", 1 << 31)
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "magic at byte 0: expected 'GGUF'"),
    "other file": (b"PK\x03\x04" + bytes(100), "magic at byte 0"),
    "version 1": (build([], [], version=1), "version at byte 4: expected GGUF 2 or 3, found version 1"),
    "version 4": (build([], [], version=4), "found version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "found a big-endian file"),
    "tensor count": (
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 0),
        "tensor count at byte 8: expected at most",
    ),
    "small tensor count": (
        b"GGUF" + struct.pack("<IQQ", 3, 9, 0),
        "tensor count at byte 8: 9 entries cannot fit",
    ),
    "metadata count": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 5),
        "metadata count at byte 16: 5 entries cannot fit",
    ),
    "key twice": (build([key("k", U32, bytes(4))] * 2, []), "metadata key 'k' at byte 41: is there twice"),
    "key not text": (build([key("k", U32, bytes(4)).replace(b"k", b"\xff")], []), "expected UTF-8 text"),
    "value type": (
        build([key("k", 13, bytes(64))], []),
        "metadata 'k' type at byte 33: expected 0 to 12, found 13",
    ),
    "boolean": (build([key("k", BOOL, b"\x02" + bytes(9))], []), "expected a boolean of 0 or 1, found 2"),
    "booleans": (
        build([key("k", ARRAY, struct.pack("<IQ", BOOL, 3) + b"\x01\x00\x05")], []),
        "metadata 'k' at byte 51: expected booleans of 0 or 1, found 5",
    ),
    "nested": (
        build([key("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + bytes(32))], []),
        "an array in an array",
    ),
    "string value": (build([key("k", STRING, struct.pack("<Q", 40) + b"abc")], []), "metadata 'k' at byte"),
    "key length": (
        build([struct.pack("<Q", (1 << 64) - 1) + bytes(50)], []),
        "metadata key 0 length at byte 24",
    ),
    "newline in key": (build([key("a\nb", 77, bytes(9))], []), r"metadata 'a\nb' type"),
    "alignment 0": (
        build([key("general.alignment", U32, bytes(4))], []),
        "general.alignment: expected a power",
    ),
    "alignment 3": (build([key("general.alignment", U32, struct.pack("<I", 3))], []), "found 3"),
    "alignment huge": (build([key("general.alignment", U32, TEN_TIMES)], []), "found 2147483648"),
    "alignment text": (build([key("general.alignment", STRING, text("32"))], []), "expected a uint32"),
    "alignment signed": (
        build([key("general.alignment", 5, struct.pack("<i", 32))], []),
        "expected a uint32",
    ),
    "no dimension": (
        build([], [info("t", (), 0, 0)], DATA),
        "number of dimensions at byte 33: expected 1 to 4, found 0",
    ),
    "five dimensions": (build([], [info("t", (1,) * 5, 0, 0)], DATA), "expected 1 to 4, found 5"),
    "empty dimension": (build([], [info("t", (32, 0), 8, 0)], DATA), "expected at least 1 of each, found 0"),
    "huge": (build([], [info("t", (1 << 63, 1 << 63), 0, 0)], DATA), "tensor 't' data at byte"),
    "product wraps to 0": (build([], [info("t", (1 << 32, 1 << 32), 0, 0)], DATA), "cut short or damaged"),
    "half a block": (
        build([], [info("t", (33,), 8, 0)], DATA),
        "rows of Q8_0 need a multiple of 32 values, found 33",
    ),
    "unknown type": (
        build([], [info("t", (32,), 99, 0)], DATA),
        "tensor 't' type at byte 45: 99 is no known",
    ),
    "withdrawn type": (build([], [info("t", (32,), 4, 0)], DATA), "4 is no known"),
    "misaligned": (
        build([], [info("t", (8,), 0, 8)], DATA),
        "expected a multiple of the alignment 32, found 8",
    ),
    "offset beyond": (build([], [info("t", (8,), 0, 96)], DATA), "the file has"),
    "offset wraps": (build([], [info("t", (8,), 0, (1 << 64) - 32)], DATA), "the file has"),
    "tensor twice": (build([], [GOOD, GOOD], DATA), "tensor 't' at byte 65: is there twice"),
    "overlap": (build([], [GOOD, info("u", (8,), 0, 64)], DATA), "its data overlaps that of tensor 't'"),
    "same place": (build([], [GOOD, info("u", (8,), 0, 0)], DATA), "overlaps"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_refusals(tmp_path: Path, name: str) -> None:
    content, expected = BAD_FILES[name]
    path = tmp_path / "m.gguf"
    assert expected in str(refusal(path, content))


def test_unsupported_types_do_not_hinder_the_metadata(tmp_path: Path) -> None:
    """A vocabulary can be read from a file whose weights we cannot multiply; the model cannot."""
    path = tmp_path / "m.gguf"
    path.write_bytes(build([], [info("t", (32,), 39, 0), info("u", (8,), 0, 32)], DATA))
    file = GGUFFile(path)
    assert file.unsupported == {"t": "MXFP4"} and list(file.tensors) == ["u"]
    with pytest.raises(UnsupportedModelError, match=r"tensor 't': type MXFP4 is not supported; .*Q4_K"):
        file.require_supported()


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="expected a file, found nothing"):
        GGUFFile(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match="expected a regular file"):
        GGUFFile(tmp_path)
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="expected a regular file"):
        GGUFFile(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="cannot be examined"):
        GGUFFile(tmp_path / ("x" * 300))


def test_real_vocabularies_agree_with_the_gguf_package() -> None:
    files = sorted((SHARED / "data" / "tokenizers").glob("*.gguf"))
    if not files:
        pytest.skip(f"no vocabularies under {SHARED}; set PELLUCID_SHARED")
    for path in sorted(files, key=lambda file: file.stat().st_size)[:2]:
        ours = GGUFFile(path).metadata
        theirs = {n: f for n, f in gguf.GGUFReader(path).fields.items() if not n.startswith("GGUF.")}
        assert set(ours) == set(theirs)
        for name, field in theirs.items():
            value = ours[name]
            if isinstance(value, StringArray):
                assert [piece.decode() for piece in value] == field.contents()
            elif isinstance(value, np.ndarray):
                assert value.tolist() == field.contents()
            else:
                assert value == field.contents()
