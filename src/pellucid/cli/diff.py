"""`pellucid diff`: where two recorded runs part, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pellucid.cli import _console, _json, _run_model

if TYPE_CHECKING:
    from pellucid.glass.run import Run


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

    found = diff_runs(_run_model.read(a), _run_model.read(b))
    text_of = None
    if model is not None:
        text_of = _texts(model, (found.a, found.b))
    if as_json:
        _json.write(found.to_dict())
    else:
        for line in found.lines(text_of):
            click.echo(_console.visible(line))
    if not found.same:
        raise click.exceptions.Exit(1)


def _texts(model: str, runs: tuple[Run, Run]) -> Callable[[int], str]:
    """The text of a token id. RunFileError: ids of one of the runs mean other texts than this model's."""
    from pellucid.errors import RunFileError
    from pellucid.fingerprint import of_tokenizer
    from pellucid.text.tokenizer import load_tokenizer
    from pellucid.weights.locate import locate

    tokenizer = load_tokenizer(locate(model))
    known = of_tokenizer(tokenizer)
    for run in runs:
        if run.model.get("tokenizer") != known:
            raise RunFileError(
                f"{run.path}: is a run with another vocabulary than that of --model {model[:60]!a}, so its token ids "
                f"mean other texts; give the model that it names ({run.model_name[:60]!a}), or leave --model out"
            )
    return tokenizer.token_text
