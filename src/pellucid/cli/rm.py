"""`pellucid rm`: free the disk that a model takes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pellucid.cli import _options

if TYPE_CHECKING:
    from pellucid.fetch.cache import Cache


@click.command("rm", short_help="Remove a fetched model: rm NAME.")
@click.argument("name", shell_complete=_options.complete_model)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def command(name: str, yes: bool) -> None:
    """Remove the fetched model NAME (as `pellucid models` lists it) and say how much that freed.

    Only what pellucid fetched is removed, and hf:org/repo from the Hub's cache, with all its revisions;
    never a file that is named by its path.
    """
    from pellucid.fetch.cache import Cache

    freed = _remove_hub(name, yes) if name.startswith("hf:") else _remove_own(Cache(), name, yes)
    from pellucid.fetch.progress import human_size

    click.echo(f"{name}: removed, {human_size(freed)} freed", err=True)


def _remove_hub(name: str, yes: bool) -> int:
    from pellucid.fetch.hubcache import hub_model, remove_hub_model

    model = hub_model(name)
    _ask(f"Remove {name} from the Hub's cache ({model.path}), which other programs share", model.size, yes)
    return remove_hub_model(name)


def _remove_own(cache: Cache, name: str, yes: bool) -> int:
    from pellucid.errors import ModelNotFoundError
    from pellucid.fetch.cache import disk_errors, folder_size

    if not cache.folders(name):
        there = ", ".join(entry.name for entry in cache.entries()) or "no models"
        raise ModelNotFoundError(f"{name} is not in the cache ({cache.root}); it holds: {there}")
    _ask(f"Remove {name} from {cache.root}", sum(folder_size(folder) for folder in cache.folders(name)), yes)
    with cache.lock(name, lambda line: click.echo(line, err=True)), disk_errors(cache.root):
        return cache.remove(name)


def _ask(question: str, size: int, yes: bool) -> None:
    """Go on if the person says so. Raises UsageError where nobody can be asked, click.Abort on no."""
    from pellucid.errors import UsageError
    from pellucid.fetch.progress import human_size

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("removing asks first, and stdin is not a terminal; add --yes")
    click.confirm(f"{question}: {human_size(size)}?", abort=True, err=True)
