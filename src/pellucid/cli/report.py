"""`pellucid report`: a run as a page of HTML."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pellucid.cli import _console, _options, _run_model


@click.command(
    epilog="""\b
Examples:
  pellucid generate "Once upon a time" --temperature 0.8 --max-tokens 80 --record run.pellucid
  pellucid report run.pellucid -o run.html

The page needs no network and no other file. It shows the text coloured by probability and, for the token that is
pointed at or reached with the arrow keys, its alternatives, what each stage of the choice did, and what every layer
would have said. Numbers that are not in the run file are computed again, with the model that it names or --model;
KV format, activations, context and backend are those of the run, or as given here.
"""
)
@click.argument("run_file", metavar="RUN", type=click.Path(dir_okay=False))
@_options.load_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Where the page goes (- is stdout).  [default: RUN with .html in place of its suffix]",
)
@click.option(
    "--top", type=click.IntRange(1, 100), default=8, show_default=True, help="Alternatives of each token."
)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(0),
    default=256,
    show_default=True,
    help="Tokens at the end of a prompt whose probabilities are told.",
)
@click.option(
    "--lens/--no-lens", default=True, show_default=True, help="What each layer would say, for every token."
)
def command(run_file: str, output: str | None, top: int, prompt_tokens: int, lens: bool, **_: object) -> None:
    """Make a page of HTML that shows a run."""
    from pellucid.front.reporting import check_target
    from pellucid.report.gather import Wanted, of_run
    from pellucid.report.page import render

    target = output if output is not None else str(Path(run_file).with_suffix(".html"))
    if target != "-" and os.path.realpath(target) == os.path.realpath(run_file):
        raise click.UsageError(f"{target}: is the run file; give another name with -o")
    run = _run_model.read(run_file)
    if target != "-":
        check_target(Path(target))
    with _run_model.open_for_run(run) as llm:
        page = render(of_run(run, llm, Wanted(top, lens, prompt_tokens, _progress)))
    _write(target, page)


def _progress(line: str) -> None:
    if _console.is_terminal(sys.stderr):
        _console.note(line)


def _write(target: str, page: str) -> None:
    from pellucid.front.reporting import write_page

    if target == "-":
        sys.stdout.buffer.write(page.encode("utf-8"))
        sys.stdout.flush()
    else:
        write_page(Path(target), page)
        _console.note(f"{target}: {len(page.encode('utf-8')):,} bytes")
