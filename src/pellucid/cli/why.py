"""`pellucid why`: why a token of a recorded run was chosen."""

from __future__ import annotations

import click

from pellucid.cli import _console, _json, _options, _run_model


@click.command(
    epilog="""\b
Examples:
  pellucid why run.pellucid                 one line for each token
  pellucid why run.pellucid --step 12       the whole record of one

All of it is computed again from the tokens and settings of the file, with the bits that it had.
In --json what is infinite (the logarithm of 0, the margin of a token that nothing else was left for) is null.
"""
)
@click.argument("file", type=click.Path(dir_okay=False))
@_options.load_options
@click.option("--step", type=int, help="Of this token of the output, from 0 (negative: from the end).")
@click.option(
    "--branch", type=click.IntRange(0), default=0, show_default=True, help="Of this sample or branch."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each token.")
def command(file: str, step: int | None, branch: int, as_json: bool, **options: object) -> None:
    """Say why the tokens of a recorded run were chosen."""
    from pellucid.glass.why import Why

    run = _run_model.read(file)
    with _run_model.open_for_run(run) as llm:
        if step is not None:
            found = [llm.why(run, step, sample=branch)]
        else:
            found = [Why(record) for record in llm.records(run, sample=branch)]
        for why in found:
            if as_json:
                _json.write(why.to_dict())
            elif step is not None:
                click.echo(_lines(str(why)))
            else:
                click.echo(_console.visible(f"{why.record.position:>6}  {why.sentence}"))


def _lines(text: str) -> str:
    return "\n".join(_console.visible(line) for line in text.split("\n"))
