"""safetensors files: what the reference wrote comes back; what breaks its rules is refused by one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from pellucid.errors import ModelFileError, UnsupportedModelError
from pellucid.weights.safetensors import MAX_HEADER_BYTES, VALUE_BYTES, SafetensorsFile


def pack(header: Any, data: bytes = b"") -> bytes:
    raw = (
        header
        if isinstance(header, bytes)
        else (header if isinstance(header, str) else json.dumps(header)).encode()
    )
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    arrays = {
        "matrix": rng.normal(size=(3, 4)).astype(np.float32),
        "half": rng.normal(size=(2, 2, 2)).astype(np.float16),
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "näme": np.ones(1, np.float32),
    }
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata={"format": "np", "k": "ü"})
    file = SafetensorsFile(path)
    assert file.metadata == {"format": "np", "k": "ü"} and set(file.entries) == set(arrays)
    for name, array in arrays.items():
        values = file.tensor(name).dequantize()
        assert values.shape == array.shape and (values == array.astype(np.float32)).all()


def test_bfloat16(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xBF80, 0x7F80, 0x0001], np.uint16)
    (tmp_path / "m.safetensors").write_bytes(pack({"b": entry("BF16", [4], 0, 8)}, bits.tobytes()))
    values = SafetensorsFile(tmp_path / "m.safetensors").tensor("b").dequantize()
    assert values.tolist() == [1.0, -1.0, float("inf"), 2.0**-133]


@pytest.mark.parametrize("dtype", sorted(VALUE_BYTES))
def test_every_dtype_opens_and_the_reference_knows_it(tmp_path: Path, dtype: str) -> None:
    content = pack({"t": entry(dtype, [3], 0, 3 * VALUE_BYTES[dtype])}, bytes(3 * VALUE_BYTES[dtype]))
    assert dict(safetensors.deserialize(content))["t"]["shape"] == [3]
    (tmp_path / "m.safetensors").write_bytes(content)
    file = SafetensorsFile(tmp_path / "m.safetensors")
    if dtype in ("F32", "F16", "BF16"):
        assert file.tensor("t").dequantize().tolist() == [0, 0, 0]
    else:
        with pytest.raises(UnsupportedModelError, match=f"tensor 't': dtype {dtype} is not supported"):
            file.tensor("t")


@pytest.mark.parametrize("space", ["", " ", " \n\t\r "])
def test_spaces_and_order_are_free(tmp_path: Path, space: str) -> None:
    parts = [
        "{",
        '"a"',
        ":",
        "{",
        '"data_offsets"',
        ":",
        "[",
        "0",
        ",",
        "4",
        "]",
        ",",
        '"shape"',
        ":",
        "[",
        "]",
    ]
    header = "{" + space.join([*parts[1:], ",", '"dtype"', ":", '"F32"', "}", "}"]) + space
    (tmp_path / "m.safetensors").write_bytes(pack(header, bytes(4)))
    assert SafetensorsFile(tmp_path / "m.safetensors").entries["a"].shape == ()


A = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
FOUR = bytes(4)
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "too short": (b"\x08\0\0", "header length at byte 0: needs 8 bytes, the file has 3"),
    "header too long": (b"\xff" * 8, f"header length at byte 0: expected at most {MAX_HEADER_BYTES} bytes"),
    "header beyond": ((100).to_bytes(8, "little") + b"{}", "is 100, but only 2 bytes follow"),
    "empty header": (pack(""), "expected '{' at its start"),
    "space first": (pack(" {}"), "header at byte 8: expected '{' at its start"),
    "not UTF-8": (pack(b'{"\xff":1}'), "header at byte 10: expected UTF-8 text"),
    "rubbish after": (pack("{} x"), "header at byte 11: expected the end, found 'x'"),
    "unfinished": (pack("{" + A, FOUR), "expected ',', found the end"),
    "name twice": (pack("{" + A + "," + A + "}", FOUR), "header key 'a' at byte 65: is there twice"),
    "name twice, escaped": (pack("{" + A + "," + A.replace("a", "\\u0061", 1) + "}", FOUR), "is there twice"),
    "metadata twice": (pack('{"__metadata__":{},"__metadata__":{}}'), "header key '__metadata__' at byte"),
    "metadata number": (
        pack('{"__metadata__":{"a":1}}'),
        "__metadata__ 'a' at byte 29: expected '\"', found '1'",
    ),
    "metadata key twice": (pack('{"__metadata__":{"a":"","a":""}}'), "__metadata__ key 'a'"),
    "lone surrogate": (pack('{"\\ud800":{}}'), "half of a surrogate pair"),
    "control character": (pack('{"a\n":{}}'), "tensor name at byte 11: Invalid control character"),
    "unknown dtype": (pack({"a": entry("F31", [1], 0, 4)}, FOUR), "tensor 'a' dtype at byte"),
    "extra key": (pack('{"a":{"dtype":"F32","x":1}}'), "key 'x' is not expected here"),
    "key twice": (
        pack('{"a":{"dtype":"F32","dtype":"F32"}}'),
        "key 'dtype' is not expected here, or is there twice",
    ),
    "key missing": (pack('{"a":{"dtype":"F32"}}'), "expected a dtype, a shape and two data_offsets"),
    "one offset": (pack("{" + A.replace("0,4", "0") + "}", FOUR), "two data_offsets"),
    "negative": (pack("{" + A.replace("[1]", "[-1]") + "}", FOUR), "expected an integer from 0 to 2^64 - 1"),
    "fraction": (pack("{" + A.replace("[1]", "[1.0]") + "}", FOUR), "expected an integer from 0"),
    "leading zero": (pack("{" + A.replace("[1]", "[01]") + "}", FOUR), "expected an integer from 0"),
    "65 bits": (pack("{" + A.replace("[1]", f"[{1 << 64}]") + "}", FOUR), "expected an integer from 0"),
    "nine dimensions": (pack({"a": entry("F32", [1] * 9, 0, 4)}, FOUR), "expected at most 8 numbers"),
    "nested": (pack("{" + A.replace("[1]", "[" * 10_000) + "}", FOUR), "expected an integer from 0"),
    "gap": (pack({"a": entry("F32", [1], 4, 8)}, bytes(8)), "expected to begin at 0, found [4, 8]"),
    "overlap": (
        pack({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12)),
        "tensor 'b' data_offsets at byte 139: expected to begin at 8, found [4, 12]",
    ),
    "shared": (
        pack({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, FOUR),
        "a gap or an overlap",
    ),
    "backwards": (pack({"a": entry("F32", [1], 0, 4), "b": entry("U8", [0], 4, 3)}, FOUR), "found [4, 3]"),
    "size differs": (
        pack({"a": entry("F32", [2], 0, 4)}, FOUR),
        "F32 of shape [2] takes 8 bytes, the offsets leave 4",
    ),
    "product wraps": (pack({"a": entry("F32", [1 << 32, 1 << 32], 0, 0)}), "the product of"),
    "product wraps beside 0": (pack({"a": entry("F32", [1 << 63, 2, 0], 0, 0)}), "the product of"),
    "cut short": (pack("{" + A + "}", bytes(3)), "data: the tensors end at byte 66, the file at 65"),
    "more data": (pack("{" + A + "}", bytes(5)), "data: the tensors end at byte 66, the file at 67"),
    "data of nobody": (pack("{}", bytes(5)), "data: the tensors end"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_refusals(tmp_path: Path, name: str) -> None:
    content, expected = BAD_FILES[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        SafetensorsFile(path)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_header_of_many_tensors_is_quick(tmp_path: Path) -> None:
    """Its time does not grow with the square of the header: 20,000 tensors take less than a second."""
    header = {f"t{i}": entry("U8", [1], i, i + 1) for i in range(20_000)}
    (tmp_path / "m.safetensors").write_bytes(pack(header, bytes(20_000)))
    assert len(SafetensorsFile(tmp_path / "m.safetensors").entries) == 20_000
