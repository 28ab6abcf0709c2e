"""The file of a saved session: a safetensors container with a manifest in JSON; docs/session-file.md describes it.

Knows bytes, no model: what a manifest means is `session_save.py`'s. A file is written whole or not at all: under
another name in the same folder, forced to the disk, then renamed. It is read with suspicion, through a map.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from pellucid.errors import ModelFileError, ModelNotFoundError, SessionFileError
from pellucid.paths import as_path, check_replaceable
from pellucid.types import Array
from pellucid.weights.safetensors import SafetensorsFile

T = TypeVar("T")
FORMAT, VERSION = "pellucid-session", "1"
TYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "I32": np.dtype(np.int32)}
NAMES = {kind: name for name, kind in TYPES.items()}
_PIECE = 1 << 24  # bytes written and hashed at a time


def write(path: str | os.PathLike[str], manifest: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    """tensors: uint8 or int32, by name. SessionFileError: it cannot be written; what was there is unchanged."""
    target = as_path("save", path)
    text = json.dumps(manifest, ensure_ascii=False)
    entries: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "version": VERSION,
            "manifest": text,
            "sha256": _digest(text, tensors),
        }
    }
    position = 0
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    header = json.dumps(entries, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        check_replaceable(target)
        with open(temporary, "xb", opener=_private) as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for tensor in tensors.values():
                for piece in _pieces(tensor):
                    file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SessionFileError(
            f"{target}: cannot be written: {reason}; what was there is unchanged"
        ) from None
    finally:
        with suppress(OSError, ValueError):
            os.unlink(temporary)  # not there any more if all went well
    with suppress(OSError):  # some file systems cannot sync a folder; the file itself is on the disk
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _private(path: str, flags: int) -> int:
    """Opened for its owner alone: what was said stands in it."""
    return os.open(path, flags, 0o600)


def _pieces(tensor: Array) -> list[memoryview]:
    data = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
    return [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]


def _digest(manifest: str, tensors: Mapping[str, Array]) -> str:
    """SHA-256 over the manifest, then each tensor in the order of their names: its name, type, shape and bytes."""
    total = sha256(manifest.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\0{name}\0{NAMES[tensor.dtype]}\0{list(tensor.shape)}\0".encode())
        for piece in _pieces(tensor):
            total.update(piece)
    return total.hexdigest()


class SessionFile:
    """A file, opened and proved whole. SessionFileError: absent, unreadable, damaged, of another kind or version.

    manifest: the JSON object. tensors: views of the mapped file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            file = SafetensorsFile(self.path)
        except ModelNotFoundError:
            self.fail("no such file")
        except ModelFileError as error:
            raise SessionFileError(f"{error}; this is no whole session file") from None
        said = file.metadata
        if said.get("format") != FORMAT:
            self.fail(f'is no session file: expected the metadata "format": "{FORMAT}"')
        if said.get("version") != VERSION:
            self.fail(
                f"is of version {said.get('version', '')[:20]!a}; this pellucid reads version {VERSION}"
            )
        self.tensors: dict[str, Array] = {}
        for name, entry in file.entries.items():
            if entry.dtype not in TYPES:
                self.fail(f"is damaged: tensor {name[:30]!a} is of type {entry.dtype}")
            data = file.source.data[file.data_start + entry.begin : file.data_start + entry.end]
            kind = TYPES[entry.dtype]
            aligned = data if not data.ctypes.data % kind.itemsize else data.copy()
            self.tensors[name] = aligned.view(kind).reshape(entry.shape)
        text = said.get("manifest", "")
        try:
            if _digest(text, self.tensors) != said.get("sha256"):
                self.fail("is damaged: its digest is another")
            self.manifest = json.loads(text)
        except (ValueError, RecursionError):
            self.fail("is damaged: its manifest is no JSON")
        if not isinstance(self.manifest, dict):
            self.fail("is damaged: its manifest is no JSON object")

    def fail(self, problem: str) -> NoReturn:
        raise SessionFileError(f"{self.path}: {problem}")

    def get(self, data: Any, key: str, kind: type[T] | tuple[type[T], ...]) -> T:
        """A member of a JSON object, of this type."""
        kinds = kind if isinstance(kind, tuple) else (kind,)
        value = data.get(key, self) if isinstance(data, dict) else self
        if type(value) not in kinds:
            names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
            self.fail(f"is damaged: expected '{key}' to be {names}")
        return value  # type: ignore[return-value]

    def tensor(self, name: str, kind: str, num_dimensions: int) -> Array:
        found = self.tensors.get(name)
        if found is None or found.dtype != TYPES[kind] or found.ndim != num_dimensions:
            self.fail(
                f"is damaged: expected a tensor '{name}' of type {kind} with {num_dimensions} dimensions"
            )
        return found
