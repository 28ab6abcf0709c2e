"""Options that `score` and `rank` share, and the checks of how they go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pellucid.cli import _console, _options
from pellucid.scoring.encode import BOUNDARIES

if TYPE_CHECKING:
    from pellucid.scoring.results import Scores

F = TypeVar("F", bound=Callable[..., Any])

LINES = """Each input line is a JSON object: "context" (text or token ids), "continuations" or "choices" (texts, or ids
all of them), and any of "id" and "gold", the index of the right one. Each output line has "index" (of the
input line, from 0), "id", and the scores or "error". With gold, the accuracy stands on stderr at the end.

A run that was stopped, even by a kill, is continued by the same command. Exit code 1: some lines have errors."""

_OPTIONS = (
    click.option(
        "-f",
        "--file",
        "source",
        type=click.Path(dir_okay=False, allow_dash=True),
        help="Items, one JSON object a line, in place of the arguments (- is stdin).",
    ),
    click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, allow_dash=True),
        default="-",
        help="With --file: where results go; a file is continued. Default: stdout.",
    ),
    click.option("--overwrite", is_flag=True, help="With --file: drop the results that the output file has."),
    click.option(
        "--delimiter",
        default="",
        help="Text put before each continuation, and not counted in its characters and bytes, such as ' '.",
    ),
    click.option(
        "--boundary",
        type=click.Choice(BOUNDARIES),
        default=BOUNDARIES[0],
        show_default=True,
        help="A token across the end of the context is scored whole (joint), or cut as lm-evaluation-harness does.",
    ),
    click.option(
        "--unconditional",
        metavar="TEXT",
        help="The context that pmi compares with; with --pmi the default is an empty one.",
    ),
    click.option("--truncate", is_flag=True, help="A context that is too long loses tokens at its left."),
)


def score_options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_mode(text: str | None, continuations: tuple[str, ...], source: str | None) -> None:
    """Either a context and continuations, or a file."""
    given = click.get_current_context().get_parameter_source
    if source is not None and text is not None:
        raise click.UsageError("give a context and continuations, or --file, not both")
    if source is None:
        if text is None or not continuations:
            raise click.UsageError("expected a context and at least one continuation, or --file")
        for name in ("output", "overwrite", "tokens"):
            if given(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} goes with --file")


def delimited(continuations: Sequence[str | Sequence[int]], delimiter: str) -> list[str | Sequence[int]]:
    """What is scored: the texts with the delimiter before them; ids, and the empty text, an error, as they are."""
    return [delimiter + each if isinstance(each, str) and each else each for each in continuations]


def as_given(scores: Scores, continuations: Sequence[str | Sequence[int]]) -> Scores:
    """The measures count the continuation without the delimiter."""
    for at, (score, given) in enumerate(zip(scores, continuations, strict=True)):
        if isinstance(given, str):
            scores[at] = replace(score, text=given, num_bytes=len(given.encode("utf-8")))
    return scores


def score_arguments(
    text: str | None, continuations: Sequence[str], unconditional: str | None, options: Mapping[str, Any]
) -> Scores:
    """The scores of what stands on the command line; what --truncate dropped is said on stderr."""
    with _options.open_llm() as llm:
        scores = llm.score(
            text or "",
            delimited(continuations, options["delimiter"]),
            boundary=options["boundary"],
            unconditional=unconditional,
            truncate=options["truncate"],
        )
    if any(each.num_dropped for each in scores):
        _console.note(f"{max(each.num_dropped for each in scores)} tokens of the context were dropped")
    return as_given(scores, continuations)
