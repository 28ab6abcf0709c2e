"""`pellucid what-if`: where other settings would first have changed a recorded text."""

from __future__ import annotations

from typing import Any

import click

from pellucid.cli import _console, _json, _options, _run_model


@click.command(
    cls=_options.SamplingCommand,
    epilog="""\b
Examples:
  pellucid what-if run.pellucid --top-p 0.8
  pellucid what-if run.pellucid --seed 7 --temperature 1.2
  pellucid what-if run.pellucid --max-tokens 10 --json

The choices are made again over the same logits; nothing is generated. What is not given is as in the run.
""",
)
@click.argument("file", type=click.Path(dir_okay=False))
@_options.load_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(file: str, as_json: bool, **options: Any) -> None:
    """Show where other settings would change a recorded run."""
    run, sampling = _run_model.read(file), _options.sampling_values()
    with _run_model.open_for_run(run) as llm:
        found = llm.what_if(run, **sampling)
        if as_json:
            _json.write(found.to_dict())
        else:
            for line in found.lines(llm.tokenizer.token_text):
                click.echo(_console.visible(line))
