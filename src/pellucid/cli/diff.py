"""`pellucid diff`: where two recorded runs part, and why."""

from __future__ import annotations

import json

import click

from pellucid.cli import _console


@click.command(
    epilog="""\b
Examples:
  pellucid diff a.pellucid b.pellucid
  pellucid diff a.pellucid b.pellucid -m smollm2-135m-instruct    with the texts of tokens

No model is loaded. Exit code 0: the same; 1: they part.
"""
)
@click.argument("a", type=click.Path(dir_okay=False))
@click.argument("b", type=click.Path(dir_okay=False))
@click.option("-m", "--model", help="Show tokens as texts, by the tokenizer of this model.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(a: str, b: str, model: str | None, as_json: bool) -> None:
    """Find where two recorded runs part, and why."""
    from pellucid.glass.diff import diff_runs
    from pellucid.glass.runfile import read_run

    found = diff_runs(read_run(a), read_run(b))
    text_of = None
    if model is not None:
        from pellucid.text.tokenizer import load_tokenizer
        from pellucid.weights.locate import locate

        text_of = load_tokenizer(locate(model)).token_text
    if as_json:
        click.echo(json.dumps(found.to_dict(), ensure_ascii=False, default=str))
    else:
        for line in found.lines(text_of):
            click.echo(_console.visible(line))
    for path, run in ((a, found.a), (b, found.b)):
        if run.num_cut_bytes:
            _console.note(
                f"{path}: the last {run.num_cut_bytes} bytes are no whole frame: the run was cut off"
            )
    if not found.same:
        raise click.exceptions.Exit(1)
