"""`pellucid replay`: a recorded run made again, and compared bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pellucid.cli import _console, _json, _options, _run_model

if TYPE_CHECKING:
    from pellucid.glass.replay import Replay


@click.command(
    epilog="""\b
Examples:
  pellucid replay run.pellucid
  pellucid replay run.pellucid --threads 1 --chunk 7 --generate
  pellucid replay run.pellucid -m other-place/model.gguf --json

Exit code 0: equal; 1: not equal, and the first step, layer and gap are told. The model is the one that the file
names, or --model; its KV format, activations, context and backend are those of the run, or as given here.
"""
)
@click.argument("file", type=click.Path(dir_okay=False))
@_options.load_options
@click.option(
    "--generate",
    is_flag=True,
    help="Generate all requests again, together, token by token; without it every position is computed in long passes "
    "and every choice is made again, which is quicker.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(file: str, generate: bool, as_json: bool, **options: object) -> None:
    """Make a recorded run again and prove that it is the same."""
    run = _run_model.read(file)
    with _run_model.open_for_run(run) as llm:
        done: Replay = llm.replay(run, way="generate" if generate else "rows")
        text_of = llm.tokenizer.token_text
        if as_json:
            _json.write(done.to_dict())
        else:
            for line in done.lines(text_of):
                click.echo(_console.visible(line))
    if not done.equal:
        raise click.exceptions.Exit(1)
