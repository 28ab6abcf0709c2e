"""Captured activations in files: safetensors shards and an index, as docs/capture.md describes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pellucid.errors import ModelFileError, PellucidError, UsageError
from pellucid.glass.captured import Captured
from pellucid.glass.flow import Capture
from pellucid.types import Array, Int32
from pellucid.weights.safetensors import SafetensorsFile

SHARD_BYTES: Final = 64 << 20  # about as much is written at a time
INDEX: Final = "capture.json"
VERSION: Final = 2
_MAX_INDEX: Final = 256 << 20
_NAMES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_KINDS: Final = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32}
_MODEL: Final = ("architecture", "weights")
_FIELDS: Final = ("sites", "layers", "positions", "reduce", "dtype", "budget", "when_full", "reuse")


class CaptureFileError(PellucidError, ValueError):
    """Captured activations cannot be read or written, or are damaged."""

    exit_code = 2


class Shards:
    """The values of a folder, read when asked for. files: names and how many rows each has, in order."""

    def __init__(self, folder: Path, files: list[tuple[str, int]]) -> None:
        self.folder, self.files = folder, files

    def read(self, site: str) -> Array:
        parts = [_tensor(self.folder / name, site, rows) for name, rows in self.files]
        if not parts:
            raise UsageError("nothing is captured: no position that was asked for has been computed")
        joined: Array = np.concatenate(parts)
        return joined


class ShardFolder:
    """A folder that is being written. Made with the first file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[tuple[str, int]] = []
        self._number = 0

    def write(self, parts: Mapping[str, Array], positions: Int32) -> None:
        """One more shard: by site [positions, layers, width]. CaptureFileError."""
        if self._number == 0:
            make_empty(self.folder)
        name = f"shard-{self._number:05d}.safetensors"
        write_tensors(self.folder / name, {"positions": positions, **parts})
        self._number += 1
        self._files.append((name, len(positions)))

    def finish(self, captured: Captured) -> Captured:
        """Writes the index; the same captured values, of the files. CaptureFileError."""
        if self._number == 0:
            make_empty(self.folder)
            self._number = 1
        facts = captured.facts()
        capture = captured.capture
        index = {
            "format": "pellucid-capture",
            "version": VERSION,
            "capture": {name: getattr(capture, name) for name in _FIELDS},
            "layers": facts["layers"],
            "num_layers": facts["num_layers"],
            "model": facts["model_print"],
            "token_ids": facts["token_ids"].tolist(),
            "positions": facts["positions"].tolist(),
            "missing": facts["missing"],
            "files": self._files,
        }
        _write_file(self.folder / INDEX, json.dumps(index).encode())
        return Captured(shards=Shards(self.folder, self._files), **facts)

    def take_back(self) -> Iterator[tuple[Int32, dict[str, Array]]]:
        """What was written, to be written again: (positions, by site the rows). The files go."""
        for name, rows in self._files:
            file = SafetensorsFile(self.folder / name)
            positions = _tensor(file.path, "positions", rows)
            parts = {site: _tensor(file.path, site, rows) for site in file.entries if site != "positions"}
            (self.folder / name).unlink()
            yield positions, parts
        self._files = []


def make_empty(folder: Path) -> None:
    """A folder that is there and empty. CaptureFileError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(entry.name[:7] != "sample-" for entry in folder.iterdir()):
            raise CaptureFileError(f"{folder}: expected an empty folder for the capture; give another")
    except OSError as error:
        raise CaptureFileError(f"{folder}: cannot be made: {error.strerror}") from None


def save(captured: Captured, folder: str | os.PathLike[str]) -> None:
    """`Captured.save`."""
    target = ShardFolder(Path(folder))
    values = {site: captured.stored(site) for site in captured.sites} if len(captured) else {}
    num_bytes = sum(array.nbytes for array in values.values())
    rows = max(1, SHARD_BYTES * max(1, len(captured)) // max(1, num_bytes))
    for start in range(0, len(captured), rows):
        part = slice(start, start + rows)
        target.write({site: array[part] for site, array in values.items()}, captured.positions[part])
    target.finish(captured)


def load(folder: str | os.PathLike[str]) -> Captured:
    """`Captured.load`."""
    path = Path(folder) / INDEX
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_INDEX + 1)
    except OSError as error:
        raise CaptureFileError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        index = json.loads(text)
        if index["format"] != "pellucid-capture" or index["version"] != VERSION:
            raise CaptureFileError(
                f"{path}: expected a pellucid-capture of version {VERSION}, found {index['format']!r:.40} of version "
                f"{index['version']!r:.20}; capture it again"
            )
        return _of_index(Path(folder), index)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        if isinstance(error, PellucidError) and not isinstance(error, UsageError):
            raise
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise CaptureFileError(f"{path}: is damaged: {why:.120}") from None


def _of_index(folder: Path, index: dict[str, Any]) -> Captured:
    capture = Capture(**{name: index["capture"][name] for name in _FIELDS})
    files = [(str(name), int(rows)) for name, rows in index["files"]]
    for name, _ in files:
        if Path(name).name != name:
            raise CaptureFileError(f"{folder / INDEX}: expected names of files beside it, got {name!r:.40}")
    positions = np.array(index["positions"], np.int32)
    if positions.ndim != 1 or sum(rows for _, rows in files) != len(positions):
        raise CaptureFileError(f"{folder / INDEX}: the files' rows are not as many as the positions")
    layers = {str(site): tuple(int(n) for n in own) for site, own in index["layers"].items()}
    if any(list(own) != sorted(set(own)) for own in layers.values()):
        raise CaptureFileError(f"{folder / INDEX}: expected the layers of each site in ascending order")
    return Captured(
        capture=replace(capture, to=folder),
        layers=layers,
        token_ids=np.array(index["token_ids"], np.int32),
        positions=positions,
        missing=tuple((int(a), int(b), str(why)) for a, b, why in index["missing"]),
        num_layers=int(index["num_layers"]),
        model_print=None if index["model"] is None else {n: str(index["model"][n]) for n in _MODEL},
        shards=Shards(folder, files),
    )


# --- safetensors ------------------------------------------------------------------------------------------
def write_tensors(
    path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """One safetensors file: float32, float16, int32, or uint16 as bfloat16. Appears whole or not at all.
    CaptureFileError."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    names = {np.dtype(kind): name for name, kind in _KINDS.items()}
    position = 0
    for name, array in tensors.items():
        end = position + array.nbytes
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    _write_file(
        path, len(text).to_bytes(8, "little") + text, *(np.ascontiguousarray(a) for a in tensors.values())
    )


def _write_file(path: Path, *parts: bytes | Array) -> None:
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part if isinstance(part, bytes) else part.data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CaptureFileError(f"{path}: cannot be written: {error.strerror}") from None


def read_tensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """All tensors of a file that `write_tensors` has written, and its metadata. CaptureFileError."""
    file = _opened(path)
    return {name: _values(file, name) for name in file.entries}, file.metadata


def _opened(path: Path) -> SafetensorsFile:
    try:
        return SafetensorsFile(path)
    except ModelFileError as error:
        raise CaptureFileError(str(error)) from None  # it names the file
    except OSError as error:
        raise CaptureFileError(f"{path}: cannot be read: {error.strerror}") from None


def _tensor(path: Path, name: str, rows: int) -> Array:
    file = _opened(path)
    if name not in file.entries or file.entries[name].shape[:1] != (rows,):
        raise CaptureFileError(f"{path}: expected the tensor {name!r:.40} of {rows} rows")
    return _values(file, name)


def _values(file: SafetensorsFile, name: str) -> Array:
    entry = file.entries[name]
    if entry.dtype not in _KINDS:
        raise CaptureFileError(
            f"{file.path}: {name!r:.40}: expected {', '.join(_KINDS)}, found {entry.dtype}"
        )
    data = file.source.data[file.data_start + entry.begin : file.data_start + entry.end]
    values: Array = np.frombuffer(bytes(data), _KINDS[entry.dtype]).reshape(entry.shape)
    return values
