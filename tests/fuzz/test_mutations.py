"""Whatever a model file holds: it opens and its tensors can be read, or ONE line says what is wrong with it.

Every case is made from its number alone; a failure names it, and `_case(number, ...)` makes it again.
"""

from __future__ import annotations

import json
import random
import struct
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gguf
import gguf_mutations
import json_mutations
import numpy as np
import pytest
import safetensors

from pellucid.errors import ModelFileError, PellucidError
from pellucid.weights.checkpoint import open_checkpoint
from pellucid.weights.gguf import GGUFFile
from pellucid.weights.safetensors import SafetensorsFile
from pellucid.weights.strings import StringArray

NUM_SEEDS = 6
# Objects of a small header and dequantised values (12 bytes for 1 of Q2_K) stay below; hostile counts do not.
FIXED_BYTES, BYTES_PER_BYTE = 256 << 10, 64
SECONDS = (
    2.0  # of CPU time, so that a busy machine does not fail; a hundred times what the slowest should take
)


def _measure(path: Path, read: Callable[[Path], object]) -> tuple[PellucidError | None, float, int]:
    """(the error, seconds, peak of allocated bytes) of one reading; any other exception passes through."""
    tracemalloc.start()
    begin = time.thread_time()
    refused = None
    try:
        read(path)
    except PellucidError as error:
        refused = error.with_traceback(None)
    finally:
        seconds, peak = time.thread_time() - begin, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return refused, seconds, peak


def _attempt(path: Path, read: Callable[[Path], object]) -> str | None:
    """None if `read` succeeds, else the error's line; an unfit line, or excess of time or memory, fails."""
    files = list(path.glob("*")) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    limit = FIXED_BYTES + BYTES_PER_BYTE * size
    refused, seconds, peak = _measure(path, read)
    if peak > limit or seconds > SECONDS:  # once: the interpreter grew a table of its own
        _, seconds, peak = _measure(path, read)
    assert peak <= limit, f"{peak} bytes for files of {size}"
    assert seconds <= SECONDS
    if refused is None:
        return None
    line = str(refused)
    assert line.isprintable() and str(path.parent) in line, line  # a line break is not printable
    assert len(line.replace(str(path.parent), "")) < 700, line
    if isinstance(refused, ModelFileError):
        assert refused.field.strip()
        assert refused.offset is None or 0 <= refused.offset <= max(file.stat().st_size for file in files)
    return line


def _read_gguf(path: Path) -> None:
    file = GGUFFile(path)
    for value in file.metadata.values():
        if isinstance(value, StringArray):
            assert len(list(value)) == len(value)
        elif isinstance(value, np.ndarray):
            value.sum()
    for tensor in file.tensors.values():
        assert tensor.dequantize().shape == tensor.shape
    open_checkpoint(path)


def _read_safetensors(path: Path) -> None:
    file = SafetensorsFile(path)
    refused = None
    for name in file.entries:
        try:
            tensor = file.tensor(name)
        except PellucidError as error:
            refused = error
            continue
        assert tensor.dequantize().shape == tensor.shape
    if refused:
        raise refused


def _agrees_with_gguf(path: Path) -> None:
    """The gguf package finds the same tensors: names, shapes, types, bytes."""
    ours = GGUFFile(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert set(theirs) == set(ours.tensors) | set(ours.unsupported)
    for name, tensor in ours.tensors.items():
        assert tensor.shape == tuple(int(size) for size in reversed(theirs[name].shape))
        assert tensor.format.label == theirs[name].tensor_type.name
        assert tensor.data.tobytes() == theirs[name].data.tobytes()


def _agrees_with_safetensors(path: Path) -> None:
    """The reference accepts the file, and finds the same tensors and bytes."""
    ours = SafetensorsFile(path)
    theirs = dict(safetensors.deserialize(path.read_bytes()))
    assert set(theirs) == set(ours.entries)
    for name, entry in ours.entries.items():
        begin, end = ours.data_start + entry.begin, ours.data_start + entry.end
        assert bytes(theirs[name]["data"]) == ours.source.read(begin, end)
        assert tuple(theirs[name]["shape"]) == entry.shape


@pytest.fixture(scope="module")
def gguf_seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("seeds")
    return [gguf_mutations.write_seed(folder / f"{seed}.gguf", seed) for seed in range(NUM_SEEDS)]


def _run_gguf(seeds: list[bytes], path: Path, cases: range) -> Counter[str]:
    maps = [gguf_mutations.fields_of(data) for data in seeds]
    verdicts: Counter[str] = Counter()
    for case in cases:
        rng = random.Random(f"gguf {case}")
        data, (fields, header_end) = seeds[case % NUM_SEEDS], maps[case % NUM_SEEDS]
        path.write_bytes(gguf_mutations.mutate(data, fields, header_end, rng))
        try:
            line = _attempt(path, _read_gguf)
            if line is None:
                _agrees_with_gguf(path)
        except Exception as error:
            raise AssertionError(f"GGUF case {case}: {path.read_bytes()[:2000]!r}") from error
        verdicts["accepted" if line is None else "refused"] += 1
    return verdicts


def _run_safetensors(path: Path, cases: range) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    seeds = [json_mutations.write_seed(seed) for seed in range(10)]
    for case in cases:
        rng = random.Random(f"safetensors {case}")
        path.write_bytes(json_mutations.mutate_safetensors(seeds[case % 10], rng))
        try:
            line = _attempt(path, _read_safetensors)
            if line is None or "is not supported" in line:
                _agrees_with_safetensors(path)
        except Exception as error:
            raise AssertionError(f"safetensors case {case}: {path.read_bytes()[:2000]!r}") from error
        verdicts["accepted" if line is None else "refused"] += 1
    return verdicts


def _hub_directory(folder: Path) -> dict[str, str]:
    """A sound sharded model; -> its JSON texts by file name."""
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for index, name in enumerate(names):
        tensor = np.full((2, 2), index, np.float32)
        safetensors.numpy.save_file({f"t{index}": tensor}, folder / name)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "width": 8, "rope_scaling": None}
    generation = {"temperature": 0.7, "eos_token_id": [1, 2], "do_sample": True}
    index_text = {"metadata": {"total_size": 32}, "weight_map": {"t0": names[0], "t1": names[1]}}
    return {
        "config.json": json.dumps(config),
        "generation_config.json": json.dumps(generation),
        "model.safetensors.index.json": json.dumps(index_text),
    }


def _read_directory(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    for file in checkpoint.files:
        assert file.parent == path
    for name in checkpoint.tensor_names:
        checkpoint.tensor(name).dequantize()


def _run_directories(folder: Path, cases: range) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    texts = _hub_directory(folder)
    for case in cases:
        rng = random.Random(f"directory {case}")
        for name, text in texts.items():
            (folder / name).write_text(text)
        name = rng.choice(list(texts))
        content = json_mutations.mutate_text(texts[name], rng).encode("utf-8", "surrogatepass")
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content) + 1)]
        (folder / name).write_bytes(content)
        try:
            line = _attempt(folder, _read_directory)
        except Exception as error:
            raise AssertionError(f"directory case {case}: {name} {content!r}") from error
        verdicts["accepted" if line is None else "refused"] += 1
    return verdicts


def _assert_both(verdicts: Counter[str]) -> None:
    """A test in which all is refused, or all accepted, would show nothing."""
    total = verdicts.total()
    assert verdicts["accepted"] > total // 50 and verdicts["refused"] > total // 10, verdicts


def test_gguf_mutations(gguf_seeds: list[bytes], tmp_path: Path) -> None:
    _assert_both(_run_gguf(gguf_seeds, tmp_path / "m.gguf", range(700)))


def test_safetensors_mutations(tmp_path: Path) -> None:
    _assert_both(_run_safetensors(tmp_path / "m.safetensors", range(700)))


def test_directory_mutations(tmp_path: Path) -> None:
    _assert_both(_run_directories(tmp_path, range(400)))


@pytest.mark.slow
def test_many_gguf_mutations(gguf_seeds: list[bytes], tmp_path: Path) -> None:
    _assert_both(_run_gguf(gguf_seeds, tmp_path / "m.gguf", range(1_000, 61_000)))


@pytest.mark.slow
def test_many_safetensors_mutations(tmp_path: Path) -> None:
    _assert_both(_run_safetensors(tmp_path / "m.safetensors", range(1_000, 31_000)))


@pytest.mark.slow
def test_many_directory_mutations(tmp_path: Path) -> None:
    _assert_both(_run_directories(tmp_path, range(1_000, 13_000)))


def _sweep_fields(data: bytes, path: Path, step: int) -> int:
    """Every field of a header set to every boundary value (every `step`th of these pairs)."""
    fields, _ = gguf_mutations.fields_of(data)
    pairs = [
        (field, value)
        for field in fields
        for value in gguf_mutations.boundary_values(len(data) - field.offset - field.size)
    ][::step]
    for field, value in pairs:
        damaged = bytearray(data)
        gguf_mutations.put(damaged, field, value)
        path.write_bytes(damaged)
        line = _attempt(path, _read_gguf)
        if field.name.endswith(("length", "count")) and value >= 1 << 31 and field.size == 8:
            assert line is not None, f"{field} = {value} was accepted"
    return len(pairs)


def test_every_field_at_a_boundary(gguf_seeds: list[bytes], tmp_path: Path) -> None:
    assert _sweep_fields(gguf_seeds[1], tmp_path / "m.gguf", step=7) > 200


@pytest.mark.slow
def test_every_field_at_every_boundary(gguf_seeds: list[bytes], tmp_path: Path) -> None:
    assert sum(_sweep_fields(data, tmp_path / "m.gguf", step=1) for data in gguf_seeds) > 10_000


def _truncations(data: bytes, path: Path, lengths: range) -> None:
    for length in lengths:
        path.write_bytes(data[:length])
        line = _attempt(path, _read_gguf if path.suffix == ".gguf" else _read_safetensors)
        assert line is not None, f"cut to {length} of {len(data)} bytes, it was accepted"


def test_truncation_at_every_byte_of_the_header(gguf_seeds: list[bytes], tmp_path: Path) -> None:
    data = gguf_seeds[0]
    _, header_end = gguf_mutations.fields_of(data)
    _truncations(data, tmp_path / "m.gguf", range(header_end + 1))
    whole = json_mutations.write_seed(1)
    _truncations(whole, tmp_path / "m.safetensors", range(len(whole)))


def test_truncation_in_the_data(gguf_seeds: list[bytes], tmp_path: Path) -> None:
    """The last byte of the last tensor is needed; the padding after it is not."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_seeds[0])
    file = GGUFFile(path)
    end = max(tensor.offset + len(tensor.data) for tensor in file.tensors.values())
    path.write_bytes(gguf_seeds[0][:end])
    assert _attempt(path, _read_gguf) is None
    path.write_bytes(gguf_seeds[0][: end - 1])
    assert "cut short" in str(_attempt(path, _read_gguf))


@pytest.mark.parametrize("item_type", [0, 4, 7, 8, 12])
@pytest.mark.parametrize("count", [1 << 20, 1 << 31, 1 << 60, (1 << 61) + 1, (1 << 64) - 1])
def test_hostile_array_counts(tmp_path: Path, item_type: int, count: int) -> None:
    path = tmp_path / "m.gguf"
    entry = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, item_type, count) + bytes(64)
    path.write_bytes(gguf_mutations.header(3, 0, 1) + entry)
    line = _attempt(path, _read_gguf)
    assert line is not None and "'k'" in line and " at byte " in line


def test_hostile_nesting(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<I", 9)
    path.write_bytes(gguf_mutations.header(3, 0, 1) + key + struct.pack("<IQ", 9, 1) * 100_000)
    assert "array in an array" in str(_attempt(path, _read_gguf))
