"""Interventions as JSON, their arrays as safetensors beside it: docs/interventions.md describes both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from pellucid.errors import PellucidError, UsageError
from pellucid.glass.intervene import KINDS, Intervention, check_interventions
from pellucid.glass.shards import CaptureFileError, read_tensors, write_tensors
from pellucid.types import Array, Float32

VERSION: Final = 1
_MAX_BYTES: Final = 16 << 20


class InterventionFileError(PellucidError, ValueError):
    """A file of interventions cannot be read or written, or is damaged."""

    exit_code = 2


def interventions_to_data(given: Sequence[Intervention]) -> tuple[list[dict[str, Any]], dict[str, Float32]]:
    """Plain JSON types, and the arrays that they name: {"kind": "steer", "vector": "array-0", "layer": 3, ...}. Equal
    arrays are one. UsageError: no interventions."""
    arrays: dict[str, Float32] = {}
    names: dict[tuple[str, tuple[int, ...]], str] = {}
    items = []
    for intervention in check_interventions(given):
        data = intervention.plain()
        for name in intervention.arrays:
            array = np.ascontiguousarray(getattr(intervention, name))
            key = hashlib.sha256(array.data).hexdigest(), array.shape
            data[name] = names.setdefault(key, f"array-{len(names)}")
            arrays[data[name]] = array
        items.append(data)
    return items, arrays


def interventions_from_data(
    items: Sequence[Mapping[str, Any]], arrays: Mapping[str, Array]
) -> tuple[Intervention, ...]:
    """What `interventions_to_data` gave. An array may also stand in its place as a list of numbers. UsageError."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise UsageError(f"interventions: expected a list, got {type(items).__name__}")
    return tuple(_one(item, arrays, number) for number, item in enumerate(items))


def _one(item: Mapping[str, Any], arrays: Mapping[str, Array], number: int) -> Intervention:
    where = f"intervention {number}"
    if not isinstance(item, Mapping) or item.get("kind") not in KINDS:
        found = item.get("kind") if isinstance(item, Mapping) else item
        raise UsageError(f"{where}: kind: expected one of {', '.join(KINDS)}, got {found!r:.40}")
    kind = KINDS[item["kind"]]
    known = {field.name for field in fields(kind)}
    values = {name: value for name, value in item.items() if name != "kind"}
    for name in values:
        if name not in known:
            raise UsageError(f"{where}: a {kind.kind} has no {name!r:.40}; it has {', '.join(sorted(known))}")
    for name in kind.arrays:
        if isinstance(values.get(name), str):
            if values[name] not in arrays:
                raise UsageError(f"{where}: {name}: there is no array {values[name]!r:.40}")
            values[name] = arrays[values[name]]
    try:
        return kind(**values)
    except TypeError:
        missing = [f.name for f in fields(kind) if f.name not in values and f.default is MISSING]
        raise UsageError(f"{where}: a {kind.kind} needs {', '.join(missing[:4])}") from None
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def save_interventions(path: str | os.PathLike[str], given: Sequence[Intervention]) -> None:
    """Writes NAME.json, and NAME.safetensors where there are arrays. Errors: UsageError, InterventionFileError."""
    target = Path(path)
    items, arrays = interventions_to_data(given)
    data: dict[str, Any] = {"format": "pellucid-interventions", "version": VERSION, "interventions": items}
    try:
        if arrays:
            beside = target.with_suffix(".safetensors")
            write_tensors(beside, arrays)
            data["arrays"] = {"file": beside.name, "sha256": hashlib.sha256(beside.read_bytes()).hexdigest()}
        target.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    except (CaptureFileError, OSError) as error:
        raise InterventionFileError(f"{target}: cannot be written: {error}") from None


def load_interventions(path: str | os.PathLike[str]) -> tuple[Intervention, ...]:
    """What `save_interventions` has written, or a list of interventions written by hand. InterventionFileError."""
    source = Path(path)
    try:
        with open(source, "rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise InterventionFileError(
                f"{source}: is larger than {_MAX_BYTES} bytes; keep arrays in a file of their own"
            )
        data = json.loads(text)
        if isinstance(data, list):
            return interventions_from_data(data, {})
        if not isinstance(data, dict) or data.get("format") != "pellucid-interventions":
            raise InterventionFileError(
                f"{source}: expected a list of interventions, or a file that was saved as such"
            )
        if data.get("version") != VERSION:
            raise InterventionFileError(
                f"{source}: version: expected {VERSION}, found {data.get('version')!r:.20}"
            )
        return interventions_from_data(data.get("interventions", []), _arrays(source, data.get("arrays")))
    except OSError as error:
        raise InterventionFileError(f"{source}: cannot be read: {error.strerror}") from None
    except UsageError as error:
        raise InterventionFileError(f"{source}: {error}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, PellucidError):
            raise
        raise InterventionFileError(f"{source}: is no JSON: {error!s:.100}") from None


def _arrays(source: Path, entry: Any) -> dict[str, Array]:
    if entry is None:
        return {}
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise InterventionFileError(f"{source}: arrays: expected the name of a file and its sha256")
    if Path(entry["file"]).name != entry["file"]:
        raise InterventionFileError(f"{source}: arrays: expected a file beside it, got {entry['file']!r:.60}")
    beside = source.with_name(entry["file"])
    if not beside.is_file():
        raise InterventionFileError(f"{beside}: the arrays of {source.name} are not there")
    if hashlib.sha256(beside.read_bytes()).hexdigest() != entry.get("sha256"):
        raise InterventionFileError(f"{beside}: is not the file that {source.name} was saved with")
    try:
        return read_tensors(beside)[0]
    except CaptureFileError as error:
        raise InterventionFileError(str(error)) from None
