"""`pellucid models`: the catalog, what is on this machine, and the disk it takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pellucid.fetch.cache import Cache

Row = dict[str, object]


@click.command("models", short_help="List known and fetched models with their disk use.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--verify", is_flag=True, help="Hash each fetched model again; exit code 1 if one is damaged.")
def command(as_json: bool, verify: bool) -> None:
    """List the catalog and the models on this machine: name, size, licence, where.

    Models that came from the Hub by hf:org/repo are kept in the Hub's cache and listed last.
    """
    from pellucid.errors import DownloadError
    from pellucid.fetch.cache import Cache
    from pellucid.fetch.progress import human_size

    cache = Cache()
    problems = _verify(cache) if verify else []
    rows = [*_own_rows(cache), *_hub_rows()]
    used = sum(int(str(row["size"])) for row in rows if row["path"] is not None)
    if as_json:
        unfinished = cache.unfinished()
        fields = {"cache": str(cache.root), "models": rows, "disk_use": used, "unfinished": unfinished}
        click.echo(json.dumps(fields | ({"damaged": problems} if verify else {})))
    else:
        _print_table(rows)
        click.echo(f"\n{human_size(used)} on this machine; models are kept in {cache.root}")
        if left := cache.unfinished():
            click.echo(
                f"{human_size(left)} of broken-off fetches; `pellucid pull` or `rm` the model to end them"
            )
    if problems:
        raise DownloadError(f"{'; '.join(problems)}; `pellucid rm` the model and pull it again")


def _verify(cache: Cache) -> list[str]:
    """What is wrong with the fetched models; each is named on stderr as it is checked."""
    problems = []
    for entry in cache.entries():
        problem = cache.verify(entry)
        click.echo(f"{entry.name}: {problem or 'sound'}", err=True)
        if problem is not None:
            problems.append(problem)
    return problems


def _own_rows(cache: Cache) -> list[Row]:
    """The catalog in its order, then what else is in our cache; `path` is None where nothing is fetched."""
    from pellucid.fetch.catalog import CATALOG

    cached = {entry.name: entry for entry in cache.entries()}
    rows: list[Row] = []
    for recipe in CATALOG.values():
        entry = cached.pop(recipe.name, None)
        rows.append(
            {
                "name": recipe.name,
                "size": recipe.size,
                "licence": recipe.licence,
                "path": str(entry.path) if entry is not None else None,
                "sha256": recipe.sha256,
                "source": entry.source if entry is not None else None,
                "summary": recipe.summary,
            }
        )
    for entry in cached.values():
        rows.append(
            {
                "name": entry.name,
                "size": entry.size,
                "licence": entry.licence,
                "path": str(entry.path),
                "sha256": entry.sha256,
                "source": entry.source,
                "summary": None,
            }
        )
    return rows


def _hub_rows() -> list[Row]:
    from pellucid.fetch.hubcache import hub_models

    return [
        {
            "name": model.name,
            "size": model.size,
            "licence": None,
            "path": str(model.path),
            "sha256": None,
            "source": model.name,
            "summary": None,
        }
        for model in hub_models()
    ]


def _print_table(rows: list[Row]) -> None:
    from pellucid.fetch.progress import human_size

    table = [("NAME", "SIZE", "LICENCE", "WHERE")]
    for row in rows:
        size = human_size(int(str(row["size"])))
        table.append((str(row["name"]), size, str(row["licence"] or "-"), str(row["path"] or "not fetched")))
    widths = [max(len(line[column]) for line in table) for column in range(3)]
    for name, size, licence, where in table:
        click.echo(f"{name:<{widths[0]}}  {size:>{widths[1]}}  {licence:<{widths[2]}}  {where}")
