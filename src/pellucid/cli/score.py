"""`pellucid score`: how probable given continuations of a text are; of one text, or of each line of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _json, _options
from pellucid.cli._score_file import best_of, run_file
from pellucid.cli._score_options import LINES, check_mode, score_arguments, score_options

if TYPE_CHECKING:
    from pellucid.scoring.results import Score, Scores


@click.command(
    epilog=f"""\b
Examples:
  pellucid score "The capital of France is" " Paris" " Rome" " a city"
  pellucid score --json "2 + 2 =" " 4" " 5" | jq .scores[0].logprob
  pellucid score --file items.jsonl -o scores.jsonl --delimiter " " --pmi

{LINES}
"""
)
@click.argument("text", metavar="[CONTEXT]", required=False)
@click.argument("continuations", nargs=-1)
@_options.load_options
@score_options
@click.option("--pmi", is_flag=True, help="Also the log-probability gained over the unconditional context.")
@click.option("--tokens", is_flag=True, help="With --file: also each token's id and log-probability.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object (with --file always one a line).")
def command(
    text: str | None,
    continuations: tuple[str, ...],
    source: str | None,
    pmi: bool,
    tokens: bool,
    as_json: bool,
    unconditional: str | None,
    **options: Any,
) -> None:
    """Score continuations of a text.

    One line for each: log-probability, the same per token and per character, "greedy" where every token is the
    most probable one, and the text.
    """
    check_mode(text, continuations, source)
    base = unconditional if unconditional is not None else "" if pmi else None
    if source is not None:

        def tell(scores: Scores) -> dict[str, Any]:
            return {"scores": [_told(each, tokens) for each in scores], "best": best_of(scores)}

        names = ("delimiter", "boundary", "truncate", "model")
        setting = {name: options[name] for name in names} | {"unconditional": base, "tokens": tokens}
        run_file(source, options["output"], overwrite=options["overwrite"], tell=tell, setting=setting)
        return
    scores = score_arguments(text, continuations, base, options)
    if as_json:
        counts = {"num_computed": scores.num_computed, "num_reused": scores.num_reused}
        listed = [_told(each, tokens=True) for each in scores]
        _json.write({"scores": listed, **counts})
        return
    _print(scores)


def _told(score: Score, tokens: bool) -> dict[str, Any]:
    more = {"token_ids": score.token_ids, "logprobs": score.logprobs} if tokens else {}
    return {
        "text": score.text,
        **more,
        "num_tokens": len(score.token_ids),
        "logprob": score.logprob,
        "per_token": score.per_token,
        "per_character": score.per_character,
        "per_byte": score.per_byte,
        "pmi": score.pmi,
        "greedy": score.greedy,
        "merged": score.merged,
        "num_dropped": score.num_dropped,
    }


def _print(scores: Scores) -> None:
    for each in scores:
        line = f"{each.logprob:>10.4f} {each.per_token:>9.4f} {each.per_character:>9.4f}"
        line += f" {each.pmi:>9.4f}" if each.pmi is not None else ""
        click.echo(f"{line}  {'greedy' if each.greedy else '      '}  {_console.visible(each.text or '')}")
    merged = sum(each.merged for each in scores)
    if merged:
        _console.note(f"{merged} scored from within the context: a token lies across the boundary")
