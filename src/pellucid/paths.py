"""Paths that a caller gives for files of ours: of the right type, and nothing but a regular file is replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pellucid.errors import UsageError


def as_path(name: str, path: Any) -> Path:
    """UsageError: neither a str nor a path."""
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    if not isinstance(path, str) or not path:
        raise UsageError(f"{name}: expected a path, got {type(path).__name__} {path!r:.40}")
    return Path(path)


def check_replaceable(target: Path) -> None:
    """OSError: something is there that a rename must not take the place of: a device, a pipe, a socket, a folder."""
    if os.path.lexists(target) and target.exists() and not target.is_file():
        raise OSError(None, "Is a directory" if target.is_dir() else "is a device or a pipe, no regular file")
