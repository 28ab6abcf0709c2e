"""`pellucid rank`: which of given continuations is the best; of one text, or of each line of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _json, _options
from pellucid.cli._score_file import run_file
from pellucid.cli._score_options import LINES, check_mode, score_arguments, score_options
from pellucid.scoring.results import MEASURES

if TYPE_CHECKING:
    from pellucid.scoring.results import Scores


@click.command(
    epilog=f"""\b
Examples:
  pellucid rank "The capital of France is" " Rome" " Paris" " a city"
  pellucid rank --by pmi --json "Is water wet?" " yes" " no"
  pellucid rank --file items.jsonl --delimiter " " --by per_character > ranking.jsonl

{LINES}
"""
)
@click.argument("text", metavar="[CONTEXT]", required=False)
@click.argument("continuations", nargs=-1)
@_options.load_options
@score_options
@click.option(
    "--by",
    type=click.Choice(MEASURES),
    default=MEASURES[0],
    show_default=True,
    help="What is compared: the whole log-probability, a share of it, or the gain over the unconditional context.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object (with --file always one a line).")
def command(
    text: str | None,
    continuations: tuple[str, ...],
    source: str | None,
    by: str,
    as_json: bool,
    unconditional: str | None,
    **options: Any,
) -> None:
    """Rank continuations of a text, the best first.

    One line for each: its number (from 0), its value, and the text. Of equals the first given comes first.
    """
    check_mode(text, continuations, source)
    base = unconditional if by != "pmi" or unconditional is not None else ""

    def tell(scores: Scores) -> dict[str, Any]:
        from pellucid.scoring.score import ranked

        order = ranked(scores, by)
        return {"ranking": order, by: [getattr(scores[i], by) for i in order], "best": {by: order[0]}}

    if source is not None:
        names = ("delimiter", "boundary", "truncate", "model")
        setting = {name: options[name] for name in names} | {"unconditional": base, "by": by}
        run_file(source, options["output"], overwrite=options["overwrite"], tell=tell, setting=setting)
        return
    scores = score_arguments(text, continuations, base, options)
    told = tell(scores)
    if as_json:
        _json.write({**told, "texts": [scores[i].text for i in told["ranking"]]})
        return
    for i, value in zip(told["ranking"], told[by], strict=True):
        click.echo(f"{i:>3} {value:>10.4f}  {_console.visible(scores[i].text or '')}")
