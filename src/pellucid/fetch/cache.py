"""The cache of model files: one folder for each model, complete and checked, or not there at all.

    models/<key>/<file>       the model
    models/<key>/entry.json   what it is: name, size, sha256, source, licence, and the file's time when it
    was checked staging/<key>/            a fetch under way; worth nothing to a reader
    locks/<key>.lock          held (flock) by whoever fetches or removes this model

A fetch builds the whole folder in staging and renames it: a reader sees all of it or nothing, whenever the
writer dies.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pellucid.errors import DownloadError, UsageError
from pellucid.fetch.progress import human_size

CHUNK = 1 << 20  # bytes read, hashed and written at a time


@dataclass(frozen=True)
class CacheEntry:
    """One cached model. `modified_ns` is the file's time when its content was last seen to match `sha256`."""

    name: str
    path: Path
    size: int
    sha256: str
    source: str
    licence: str | None
    fetched: str
    modified_ns: int


def cache_root() -> Path:
    """$PELLUCID_HOME, $XDG_CACHE_HOME/pellucid, or ~/.cache/pellucid. Raises UsageError without a home."""
    if own := os.environ.get("PELLUCID_HOME"):
        return Path(own).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the XDG specification: a relative path counts as unset
        return Path(xdg) / "pellucid"
    try:
        return Path.home() / ".cache" / "pellucid"
    except RuntimeError:
        raise UsageError("no home directory to keep models in; set PELLUCID_HOME to a directory") from None


def offline() -> str | None:
    """The variable that forbids the network, as `NAME=value`, or None. Raises UsageError for odd values."""
    for variable in ("PELLUCID_OFFLINE", "HF_HUB_OFFLINE"):
        value = os.environ.get(variable, "")
        if value.lower() in {"1", "true", "yes", "on"}:
            return f"{variable}={value}"
        if value.lower() not in {"", "0", "false", "no", "off"}:
            raise UsageError(f"{variable} must be 1 or 0, not '{value}'")
    return None


class BrokenOffError(DownloadError):
    """A download ended early. `kept`: some of it came whole and waits in staging for the next try."""

    kept = False


class Cache:
    """The cache in one directory, which is made when something is first written."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else cache_root()

    def entries(self) -> list[CacheEntry]:
        """All cached models by name; nothing is hashed."""
        folders = sorted((self.root / "models").glob("*/entry.json"))
        found = (_read_entry(path.parent) for path in folders)
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.name)

    def unfinished(self) -> int:
        """Bytes that broken-off fetches have left in staging."""
        return folder_size(self.root / "staging")

    def find(self, name: str, note: Callable[[str], None]) -> CacheEntry | None:
        """The cached model of this name, or None.

        A file whose size or time changed since it was checked is hashed again; if the content is not what
        was fetched, it is not used, and `note` says so. The next `commit` replaces it.
        """
        entry = _read_entry(self._folder(name))
        if entry is None or entry.name != name:
            return None
        try:
            status = entry.path.stat()
        except OSError:
            return None
        if status.st_size == entry.size and status.st_mtime_ns == entry.modified_ns:
            return entry
        got = file_sha256(entry.path)
        if got != entry.sha256:
            note(f"{entry.path}: changed in the cache (expected sha256 {entry.sha256}, got {got}); not used")
            return None
        self._checked_again(entry, status.st_mtime_ns)
        return entry

    def _checked_again(self, entry: CacheEntry, modified_ns: int) -> None:
        """Note the file's new time, lest it be hashed at every start; a read-only cache does without."""
        folder = self._folder(entry.name)
        record = folder / f"entry.{os.getpid()}.json"
        try:
            record.write_text(_to_json(replace(entry, modified_ns=modified_ns)), encoding="utf-8")
            os.replace(record, folder / "entry.json")
        except OSError:
            with suppress(OSError):
                record.unlink()

    def verify(self, entry: CacheEntry) -> str | None:
        """Hash the whole file: None if it is what was fetched, else what is wrong, in one line."""
        try:
            got = file_sha256(entry.path)
        except OSError as error:
            return f"{entry.path}: {error.strerror}"
        return None if got == entry.sha256 else f"{entry.path}: expected sha256 {entry.sha256}, got {got}"

    @contextmanager
    def lock(self, name: str, note: Callable[[str], None]) -> Iterator[None]:
        """Be the only process that fetches or removes this model; `note` says when that means waiting."""
        with disk_errors(self.root):
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            handle = open(self.root / "locks" / f"{cache_key(name)}.lock", "a+b")  # noqa: SIM115
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note(f"{name}: another process is fetching it; waiting")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield  # closing the file releases the lock, and so does dying

    def staging(self, name: str) -> Path:
        """The folder in which to fetch this model, made if need be. Hold the lock."""
        folder = self.root / "staging" / cache_key(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_staging(self, name: str) -> None:
        shutil.rmtree(self.root / "staging" / cache_key(name), ignore_errors=True)

    def commit(
        self,
        name: str,
        file: Path,
        file_name: str,
        *,
        size: int,
        sha256: str,
        source: str,
        licence: str | None,
    ) -> CacheEntry:
        """Make a checked file in staging the cached model of this name, all at once. Hold the lock."""
        built = self.staging(name) / "entry"
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        target = built / file_name
        os.replace(file, target)
        fsync(target)
        folder = self._folder(name)
        entry = CacheEntry(
            name=name,
            path=folder / file_name,
            size=size,
            sha256=sha256,
            source=source,
            licence=licence,
            fetched=datetime.now(UTC).isoformat(timespec="seconds"),
            modified_ns=target.stat().st_mtime_ns,
        )
        record = built / "entry.json"
        record.write_text(_to_json(entry), encoding="utf-8")
        fsync(record)
        fsync(built)
        if folder.exists():  # outdated or damaged: `find` refused it
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(built, folder)
        fsync(folder.parent)
        self.clear_staging(name)
        return entry

    def remove(self, name: str) -> int:
        """Delete the model and what a broken-off fetch of it left. Returns the bytes freed. Hold the lock."""
        freed = 0
        for folder in self.folders(name):
            size = folder_size(folder)
            shutil.rmtree(folder)
            freed += size
        return freed

    def folders(self, name: str) -> list[Path]:
        """The folders that hold anything of this model, whole or not."""
        both = (self._folder(name), self.root / "staging" / cache_key(name))
        return [folder for folder in both if folder.exists()]

    def _folder(self, name: str) -> Path:
        return self.root / "models" / cache_key(name)


def cache_key(name: str) -> str:
    """A name as one safe folder name; different names never share one."""
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,79}", name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", name)[:80] + "@" + digest


def _to_json(entry: CacheEntry) -> str:
    fields: dict[str, Any] = {**asdict(entry), "path": entry.path.name}
    return json.dumps(fields, indent=1) + "\n"


def _read_entry(folder: Path) -> CacheEntry | None:
    """What entry.json says, or None if it is absent, unreadable or not ours."""
    try:
        fields = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        file_name = fields.pop("path")
        if not isinstance(file_name, str) or Path(file_name).name != file_name:
            return None
        return CacheEntry(path=folder / file_name, **fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def file_sha256(path: Path, at: Callable[[int], None] | None = None) -> str:
    """The sha256 of a file's content; `at` hears how many bytes are done."""
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if at is not None:
                at(done)
    return digest.hexdigest()


def folder_size(folder: Path) -> int:
    """Bytes of all files under a folder; 0 if there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def fsync(path: Path) -> None:
    """Have the system write a file or a folder to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_space(name: str, folder: Path, needed: int, variable: str = "PELLUCID_HOME") -> None:
    """Raises DownloadError unless `needed` bytes are free where `folder` is to be; `variable` moves it."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DownloadError(
            f"{name}: needs {human_size(needed)} in {folder}, and {human_size(free)} are free; "
            f"free some space, or set {variable} to a larger disk"
        )


@contextmanager
def disk_errors(folder: Path, variable: str = "PELLUCID_HOME") -> Iterator[None]:
    """Turn what the disk refuses into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DownloadError(
                f"the disk of {folder} is full; free some space, or set {variable} to a larger disk"
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
            raise DownloadError(
                f"{error.filename or folder}: {error.strerror}; "
                f"set {variable} to a directory that you may write to"
            ) from error
        raise
