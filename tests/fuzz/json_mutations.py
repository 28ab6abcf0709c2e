"""Damage to JSON texts, token by token, and to the safetensors files whose header they are."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import safetensors.numpy

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[\[\]{}:,]|true|false|null|\s+')
NUMBERS = [
    *("0", "1", "-1", "-0", "00", "1.0", "1e2", "0.5", "4294967295", "4294967296", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551615", "18446744073709551616", "1" * 400, "1" * 5000),
]
STRINGS = [
    *('""', '"F32"', '"F64"', '"BF16"', '"F4"', '"f32"', '"dtype"', '"__metadata__"', '"a"', '"\\ud800"'),
    *('"\\u0000"', '"\\x41"', '"\n"', '"../x.safetensors"', '"/etc/passwd"', '"..\\\\x"'),
    *('"model-00001-of-00002.safetensors"', '"llama"', '"bert"', '"' + "y" * 300 + '"'),
]
OTHERS = [
    *("null", "true", "NaN", "-Infinity", "[]", "{}", "[" * 30, "[" * 3000, "]", "{", "}", ",", ":", ""),
    *(" ", "\t", "\x00", "é"),
]


def mutate_text(text: str, rng: random.Random) -> str:
    """One or two tokens replaced, doubled, dropped or exchanged."""
    tokens = TOKEN.findall(text)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(tokens))
        kind = rng.randrange(7)
        if kind == 0:
            tokens[at] = rng.choice(NUMBERS + STRINGS + OTHERS)
        elif kind == 1:  # a number for a number, a text for a text: the grammar stays sound
            numeric = rng.random() < 0.7
            alike = [i for i, token in enumerate(tokens) if token[:1] == '"' or token[:1].isdigit()]
            alike = [i for i in alike if (tokens[i][0] != '"') == numeric] or alike
            tokens[rng.choice(alike)] = rng.choice(NUMBERS if numeric else STRINGS)
        elif kind == 2:
            tokens.insert(at, tokens[rng.randrange(len(tokens))])
        elif kind == 3 and len(tokens) > 4:
            del tokens[at]
        elif kind == 4:
            other = rng.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif kind == 5:
            begin, end = sorted((at, rng.randrange(len(tokens))))
            tokens[at:at] = tokens[begin : min(end, begin + 20)]
        else:
            tokens.insert(at, rng.choice((" ", "\n", "\t", "\r", "\v", "\u00a0")))
    return "".join(tokens)


def write_seed(seed: int) -> bytes:
    """A sound safetensors file: several dtypes, a scalar, an empty tensor, metadata."""
    rng = np.random.default_rng(seed)
    tensors = {
        "a": rng.normal(size=(2, 3)).astype(np.float32),
        "b.weight": rng.normal(size=(4,)).astype(np.float16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 7), np.float32),
        "ids": np.arange(5, dtype=np.int64),
        "mask": np.array([True, False]),
    }
    kept = dict(list(tensors.items())[: 2 + seed % 5])
    return bytes(safetensors.numpy.save(kept, metadata={"format": "np"} if seed % 2 else None))


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    kind = rng.randrange(10)
    if kind == 0:
        rest = len(data) - 8
        values = [0, 1, 2, rest - 1, rest, rest + 1, length - 1, length + 1, 100_000_000, 100_000_001]
        values += [(1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 1]
        return rng.choice(values).to_bytes(8, "little") + data[8:]
    if kind == 1:
        return data[: rng.randrange(len(data))]
    if kind == 2:
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(damaged)
    if kind == 3:
        body = rng.choice((body + b"\0", body[:-1], b"", body * 2, body + bytes(100)))
    elif kind == 4:
        header = _shift_offsets(header, rng)
    else:
        header = mutate_text(header.decode(), rng).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        header += b" " * rng.randrange(9)
    return len(header).to_bytes(8, "little") + header + body


def _shift_offsets(header: bytes, rng: random.Random) -> bytes:
    """Offsets and shapes that no longer agree: gaps, overlaps, exchanged and grown tensors."""
    entries = json.loads(header)
    names = [name for name in entries if name != "__metadata__"]
    name, other = rng.choice(names), rng.choice(names)
    kind = rng.randrange(6)
    if kind == 0:
        entries[name]["data_offsets"][rng.randrange(2)] += rng.choice((-4, -1, 1, 4, 1 << 32))
    elif kind == 1:
        offsets = entries[name]["data_offsets"]
        entries[name]["data_offsets"] = entries[other]["data_offsets"]
        entries[other]["data_offsets"] = offsets
    elif kind == 2:
        entries[name]["data_offsets"] = entries[other]["data_offsets"]
    elif kind == 3:
        shapes = ([1 << 32, 1 << 32], [1 << 62, 4], [1 << 63, 1 << 63, 0], [0, 1 << 63], [1] * 9)
        entries[name]["shape"] = rng.choice(shapes)
    elif kind == 4:
        entries[name]["shape"] = [*entries[name]["shape"], rng.choice((0, 1, 2))]
    else:
        entries[name]["dtype"] = rng.choice(("F32", "F16", "BF16", "I8", "F64", "F8_E4M3", "X"))
    return json.dumps(entries).encode()
