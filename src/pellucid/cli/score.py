"""`pellucid score`: how probable given continuations of a text are."""

from __future__ import annotations

import json

import click

from pellucid.cli import _console, _options


@click.command(
    epilog="""\b
Examples:
  pellucid score "The capital of France is" " Paris" " Rome" " a city"
  pellucid score --json "2 + 2 =" " 4" " 5" | jq .scores[0].logprob
"""
)
@click.argument("text", metavar="CONTEXT")
@click.argument("continuations", nargs=-1, required=True)
@_options.load_options
@click.option("--pmi", is_flag=True, help="Also the log-probability gained over an empty context.")
@click.option("--truncate", is_flag=True, help="A context that is too long loses tokens at its left.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    text: str, continuations: tuple[str, ...], pmi: bool, truncate: bool, as_json: bool, **_: object
) -> None:
    """Score continuations of a text.

    One line for each: log-probability, the same per token and per character, "greedy" where every token is the
    most probable one, and the text.
    """
    with _options.open_llm() as llm:
        scores = llm.score(text, continuations, unconditional="" if pmi else None, truncate=truncate)
        if as_json:
            listed = [
                {
                    "text": each.text,
                    "token_ids": each.token_ids,
                    "logprobs": each.logprobs,
                    "logprob": each.logprob,
                    "per_token": each.per_token,
                    "per_character": each.per_character,
                    "per_byte": each.per_byte,
                    "pmi": each.pmi,
                    "greedy": each.greedy,
                    "merged": each.merged,
                    "num_dropped": each.num_dropped,
                }
                for each in scores
            ]
            counts = {"num_computed": scores.num_computed, "num_reused": scores.num_reused}
            click.echo(json.dumps({"scores": listed, **counts}, ensure_ascii=False))
            return
        for each in scores:
            line = f"{each.logprob:>10.4f} {each.per_token:>9.4f} {each.per_character:>9.4f}"
            line += f" {each.pmi:>9.4f}" if each.pmi is not None else ""
            click.echo(
                f"{line}  {'greedy' if each.greedy else '      '}  {_console.visible(each.text or '')}"
            )
        merged = sum(each.merged for each in scores)
        if merged:
            _console.note(f"{merged} scored from within the context: a token lies across the boundary")
        if any(each.num_dropped for each in scores):
            _console.note(f"{max(each.num_dropped for each in scores)} tokens of the context were dropped")
