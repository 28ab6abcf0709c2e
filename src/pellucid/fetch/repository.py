"""Locate `hf:org/repo[@revision][/file]`: choose the files that make the model, and have them in the Hub's
own cache.

The files stay where huggingface_hub keeps them (HF_HOME), shared with every other tool. Only what a model
needs is fetched: weights as GGUF or safetensors, configuration, tokenizer and template; never pickles, never
code.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pellucid.errors import DownloadError, ModelNotFoundError, UsageError
from pellucid.fetch.cache import check_space, disk_errors, file_sha256, offline
from pellucid.fetch.hub import (
    HubUnreachableError,
    answer_seconds,
    ask,
    endpoint,
    hub_errors,
    own_bars_off,
)
from pellucid.fetch.progress import Progress, phase, watching

# Beside the weights, in the repository's root.
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
)
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class RepositorySpec:
    """`repo` is org/name, `file` a path within it or None for the model that the repository is."""

    repo: str
    file: str | None
    revision: str

    @property
    def what(self) -> str:
        return self.repo if self.file is None else f"{self.repo}/{self.file}"


def parse_spec(spec: str) -> RepositorySpec:
    """`hf:org/repo`, `hf:org/repo/file`, `hf:org/repo@revision/file`. Raises UsageError."""
    match = re.fullmatch(r"hf:([^/@]+/[^/@]+)(?:@(\w[\w.-]*))?(?:/(.+))?", spec)
    if match is None or not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", match[1]):
        raise UsageError(
            f"'{spec}' is not hf:org/repo or hf:org/repo/file (with @revision after the repo, if any)"
        )
    file = match[3]
    if file is not None and any(part in {"", ".", ".."} for part in file.split("/")):
        raise UsageError(f"'{spec}': '{file}' is not the path of a file in a repository")
    return RepositorySpec(match[1], file, match[2] or "main")


def locate_in_hub(spec: RepositorySpec, progress: Progress) -> Path:
    """The model's file, or its directory for safetensors. Raises ModelNotFoundError, DownloadError."""
    forbidden = offline()
    if forbidden:
        return _cached(spec, f"and {forbidden} forbids fetching it")
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    seconds = answer_seconds()
    try:
        about = ask(
            lambda: api.model_info(spec.repo, revision=spec.revision, files_metadata=True, timeout=seconds),
            spec.what,
            seconds,
        )
    except HubUnreachableError as error:
        path = _cached(spec, f"and {error}")
        progress.note(f"hf:{spec.what}: {error}; using the copy in the Hub's cache")
        return path
    remote = {
        file.rfilename: RemoteFile(file.size or 0, getattr(file.lfs, "sha256", None))
        for file in about.siblings or ()
    }
    commit = str(about.sha)
    with disk_errors(_cache_folder(spec.repo), "HF_HOME"):
        shards = None
        if _wants_index(spec, remote):
            shards = _shards(_download(spec, commit, [INDEX], remote, progress) / INDEX)
        chosen = choose_files(spec, remote, shards)
        folder = _download(spec, commit, chosen.files, remote, progress)
    return folder / chosen.result if chosen.result else folder


def _wants_index(spec: RepositorySpec, there: Collection[str]) -> bool:
    """Whether the model is the safetensors shards that the repository's index names."""
    if spec.file is None:
        return INDEX in there and not any(name.endswith(".gguf") for name in there)
    return spec.file == INDEX and INDEX in there


@dataclass(frozen=True)
class RemoteFile:
    """What the Hub says of a file; `sha256` is None for a small one that it keeps in git."""

    size: int
    sha256: str | None


@dataclass(frozen=True)
class Choice:
    """`files` to have; the model is the file `result` among them, or their directory if that is empty."""

    files: list[str]
    result: str


def choose_files(spec: RepositorySpec, there: Collection[str], shards: list[str] | None) -> Choice:
    """Which of the repository's files make the model. Raises ModelNotFoundError where that is not clear.

    `shards` are the weight files that the repository's safetensors index names, None if it has no index.
    """
    names = sorted(there)
    root = [name for name in names if "/" not in name and _harmless(name)]
    side = [name for name in root if any(fnmatch.fnmatchcase(name, pattern) for pattern in SIDE_FILES)]
    if spec.file is not None and shards is None:
        if spec.file not in names:
            raise ModelNotFoundError(f"hf:{spec.repo}: no file '{spec.file}'; {_near(spec.file, names)}")
        if not spec.file.endswith((".gguf", ".safetensors")):
            raise UsageError(f"hf:{spec.what}: pellucid reads GGUF and safetensors, not this kind of file")
        if spec.file.endswith(".gguf"):
            return Choice([spec.file], spec.file)
        return Choice(sorted({spec.file, *side}), spec.file)
    ggufs = [name for name in names if name.endswith(".gguf")]
    tensors = [name for name in root if name.endswith(".safetensors")]
    if len(ggufs) == 1 and not tensors:
        return Choice(ggufs, ggufs[0])
    if ggufs and shards is None:
        tensors = [INDEX] if INDEX in names else tensors
        both = " and safetensors" if tensors else ""
        raise ModelNotFoundError(
            f"hf:{spec.repo} holds {len(ggufs)} GGUF files{both}; name one: "
            + ", ".join(f"hf:{spec.repo}/{name}" for name in [*ggufs, *tensors])
        )
    if shards is not None:
        if missing := [name for name in shards if name not in names]:
            raise ModelNotFoundError(f"hf:{spec.repo}: {INDEX} names '{missing[0]}', which is not there")
        return Choice(sorted({INDEX, *shards, *side}), "")
    if "model.safetensors" in tensors or len(tensors) == 1:
        weights = "model.safetensors" if "model.safetensors" in tensors else tensors[0]
        return Choice(sorted({weights, *side}), "")
    if tensors:
        raise ModelNotFoundError(
            f"hf:{spec.repo} holds {len(tensors)} safetensors files and no {INDEX}; name one: "
            + ", ".join(f"hf:{spec.repo}/{name}" for name in tensors)
        )
    raise ModelNotFoundError(
        f"hf:{spec.repo} holds neither GGUF nor safetensors files, which are what pellucid reads; "
        f"it holds: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}"
    )


def _harmless(name: str) -> bool:
    """Never what a reader might execute (pickles, code), whatever its name begins with."""
    return name.endswith((".gguf", ".safetensors", ".json", ".txt", ".jinja", ".model"))


def _near(wanted: str, names: list[str]) -> str:
    from difflib import get_close_matches

    models = [name for name in names if name.endswith((".gguf", ".safetensors"))]
    near = get_close_matches(wanted, models, 5, 0.5) or models[:20]
    return f"there are: {', '.join(near)}" if near else "it holds no GGUF or safetensors files"


def _shards(index: Path) -> list[str]:
    """The weight files that a safetensors index names, each a plain name in the same folder."""
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(table.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelNotFoundError(
            f"{index}: weight_map: not a table of tensor names to files: {error}"
        ) from error
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise ModelNotFoundError(
                f"{index}: weight_map: '{name}' is not a safetensors file in this directory"
            )
    return names


def _download(
    spec: RepositorySpec, commit: str, names: list[str], remote: Mapping[str, RemoteFile], progress: Progress
) -> Path:
    """Have the files at this commit in the Hub's cache; returns their folder. Raises DownloadError."""
    from huggingface_hub import try_to_load_from_cache

    missing = [n for n in names if not isinstance(try_to_load_from_cache(spec.repo, n, revision=commit), str)]
    if missing:
        done = 0
        total = sum(remote[name].size for name in missing)
        check_space(f"hf:{spec.what}", _cache_folder(spec.repo), total, "HF_HOME")
        with phase(progress, f"fetching hf:{spec.what} ({len(missing)} files)", total):
            for name in missing:
                with watching(_cache_folder(spec.repo) / "blobs", progress, done, "*.incomplete"):
                    _check(_download_file(spec.repo, name, commit), f"hf:{spec.repo}/{name}", remote[name])
                done += remote[name].size
                progress.at(done)
    branch = _cache_folder(spec.repo) / "refs" / spec.revision
    if spec.revision != commit and not (branch.is_file() and branch.read_text() == commit):
        # Asked for by the branch's name, a file leaves a note of what the branch is now: this is what makes
        # the model findable offline.
        _download_file(spec.repo, names[-1], spec.revision)
    return _download_file(spec.repo, names[0], commit).parents[names[0].count("/")]


def _check(path: Path, what: str, expected: RemoteFile) -> None:
    """Refuse and delete a file that is not what the Hub says it is; plain HTTP checks only the length."""
    size = path.stat().st_size
    sha256 = file_sha256(path) if expected.sha256 is not None else None
    if size != expected.size or sha256 != expected.sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{what}: expected {expected.size} bytes with sha256 {expected.sha256}, got {size} bytes "
            f"with sha256 {sha256}; refused and deleted"
        )


def _download_file(repo: str, name: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    with hub_errors(f"{repo}/{name}"), own_bars_off():
        return Path(
            hf_hub_download(repo, name, revision=revision, endpoint=endpoint(), etag_timeout=answer_seconds())
        )


def _cache_folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _cached(spec: RepositorySpec, why: str) -> Path:
    """The model as the Hub's cache has it, without the network; DownloadError if it is not whole there."""
    cached = _cache_folder(spec.repo)
    note = cached / "refs" / spec.revision
    commit = note.read_text().strip() if note.is_file() else spec.revision
    folder = cached / "snapshots" / commit
    if not re.fullmatch(r"[\w.-]+", commit) or not folder.is_dir():
        raise DownloadError(f"hf:{spec.what} is not in the Hub's cache ({cached.parent}), {why}")
    there = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    shards = _shards(folder / INDEX) if _wants_index(spec, there) else None
    try:
        chosen = choose_files(spec, there, shards)
    except ModelNotFoundError as error:
        raise DownloadError(f"{error} (in the Hub's cache, {why})") from error
    return folder / chosen.result if chosen.result else folder
