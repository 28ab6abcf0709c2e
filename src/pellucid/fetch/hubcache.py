"""The Hub's own cache, as far as it holds models that pellucid can run: list them, remove one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import DownloadError, ModelNotFoundError


@dataclass(frozen=True)
class HubModel:
    """A repository in the Hub's cache. `size` counts all its revisions, what they share only once."""

    name: str
    path: Path
    size: int


def hub_models() -> list[HubModel]:
    """The cached repositories that hold GGUF or safetensors files, by name."""
    return [
        HubModel(f"hf:{repo.repo_id}", Path(repo.repo_path), repo.size_on_disk)
        for repo in sorted(_repositories(), key=lambda repo: str(repo.repo_id))
        if any(
            file.file_name.endswith((".gguf", ".safetensors"))
            for revision in repo.revisions
            for file in revision.files
        )
    ]


def hub_model(name: str) -> HubModel:
    """The cached repository `hf:org/repo`. Raises ModelNotFoundError if it is not there."""
    for model in hub_models():
        if model.name == name:
            return model
    there = ", ".join(model.name for model in hub_models()) or "no models"
    raise ModelNotFoundError(f"{name} is not in the Hub's cache; it holds: {there}")


def remove_hub_model(name: str) -> int:
    """Delete all revisions of `hf:org/repo`; returns the bytes freed. Raises PellucidError."""
    model = hub_model(name)
    info = _scan()
    assert info is not None  # it was there a moment ago
    commits = [
        revision.commit_hash
        for repo in info.repos
        if repo.repo_type == "model" and f"hf:{repo.repo_id}" == name
        for revision in repo.revisions
    ]
    info.delete_revisions(*commits).execute()
    if model.path.exists():  # huggingface_hub logs what it could not delete, and goes on
        raise DownloadError(f"{model.path}: could not be deleted whole; delete it by hand")
    return model.size


def _repositories() -> list[Any]:
    info = _scan()
    return [] if info is None else [repo for repo in info.repos if repo.repo_type == "model"]


def _scan() -> Any:
    """huggingface_hub's account of its cache; None if there is no cache yet."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        return scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return None
