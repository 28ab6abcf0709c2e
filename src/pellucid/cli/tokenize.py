"""`pellucid tokenize`: text to token ids and pieces, and back."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from pellucid.cli import _console, _json, _options

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

_COLORS = ("cyan", "yellow", "magenta", "green", "blue")


@click.command(
    epilog="""\b
Examples:
  pellucid tokenize "Hello world"
  pellucid tokenize --ids "Hello world"          19556 905
  pellucid tokenize --decode 19556 905
  pellucid tokenize --parse-special "<|im_start|>user"
  cat book.txt | pellucid tokenize --ids | wc -w
"""
)
@click.argument("text", nargs=-1)
@_options.model
@click.option("-f", "--file", type=click.Path(dir_okay=False), help="Read the text from a file (- is stdin).")
@click.option("--ids", "only_ids", is_flag=True, help="Print the ids alone, on one line.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--decode", is_flag=True, help="The other way: the arguments are token ids; print their text.")
@click.option("--parse-special", is_flag=True, help='Text such as "<|im_start|>" becomes control tokens.')
@click.option(
    "--bos/--no-bos", default=None, show_default="as the model asks", help="Begin with the BOS token."
)
def command(
    text: tuple[str, ...],
    model: str,
    file: str | None,
    only_ids: bool,
    as_json: bool,
    decode: bool,
    parse_special: bool,
    bos: bool | None,
) -> None:
    """Show the tokens of a text.

    One line for each: id and piece. Several arguments are joined by a space.
    """
    from pellucid.text.tokenizer import load_tokenizer
    from pellucid.weights.locate import locate

    given = _console.read_text(file, " ".join(text) if text else None)
    if given is None:
        raise click.UsageError("no text: give it as an argument, with --file, or on stdin")
    tokenizer = load_tokenizer(locate(model))
    if decode:
        ids = _parse_ids(given, tokenizer.vocabulary_size)
    else:
        ids = tokenizer.encode(given, add_bos=bos, parse_special=parse_special)
    if as_json:
        out = {
            "text": tokenizer.decode(ids) if decode else given,
            "ids": ids,
            "pieces": _pieces(tokenizer, ids),
        }
        _json.write(out | {"num_tokens": len(ids)})
    elif only_ids:
        click.echo(" ".join(map(str, ids)))
    elif decode:
        _console.write(tokenizer.decode(ids))
        if _console.is_terminal(sys.stdout):
            click.echo()
    else:
        _print(tokenizer, ids)


def _pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.piece(token) for token in ids]


def _print(tokenizer: Tokenizer, ids: list[int]) -> None:
    """One "id  piece" line for each token; on a terminal the coloured text above it."""
    pieces = _pieces(tokenizer, ids)
    if _console.use_color(sys.stdout):
        parts = (
            click.style(_console.harmless(tokenizer.token_text(token)), fg=_COLORS[where % len(_COLORS)])
            for where, token in enumerate(ids)
        )
        click.echo("".join(parts) + "\n")
    width = max((len(str(token)) for token in ids), default=1)
    for token, piece in zip(ids, pieces, strict=True):
        click.echo(f"{token:>{width}}  {_console.visible(piece)}")
    _console.note(f"{len(ids)} tokens")


def _parse_ids(text: str, vocabulary_size: int) -> list[int]:
    """Ids separated by spaces or commas, in brackets or not. UsageError: not ids of the vocabulary."""
    from pellucid.errors import UsageError

    ids = []
    for word in re.split(r"[\s,\[\]]+", text.strip()):
        if not word:
            continue
        if not re.fullmatch(r"[0-9]{1,10}", word) or int(word) >= vocabulary_size:
            raise UsageError(f"--decode: expected token ids from 0 to {vocabulary_size - 1}, got '{word}'")
        ids.append(int(word))
    return ids
