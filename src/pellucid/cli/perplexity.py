"""`pellucid perplexity`: how well a model predicts a text."""

from __future__ import annotations

from dataclasses import asdict

import click

from pellucid.cli import _console, _json, _options
from pellucid.glass.words import counted


@click.command(
    epilog="""\b
Examples:
  pellucid perplexity book.txt
  pellucid perplexity book.txt --window 1024 --stride 512 --json
"""
)
@click.argument("file", type=click.Path(dir_okay=False))
@_options.load_options
@click.option("--window", type=int, show_default="the context", help="Tokens that a pass sees at most.")
@click.option(
    "--stride", type=int, show_default="the window", help="Tokens that each window after the first predicts."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(file: str, window: int | None, stride: int | None, as_json: bool, **_: object) -> None:
    """Perplexity and bits per byte of a text file (- is stdin)."""
    text = _console.read_text(file, None)
    if not text:
        raise click.UsageError(f"{file}: no text")
    with _options.open_llm() as llm:
        result = llm.perplexity(text, window=window, stride=stride)
    told = {
        "perplexity": result.perplexity,
        "word_perplexity": result.word_perplexity,
        "byte_perplexity": result.byte_perplexity,
        "bits_per_byte": result.bits_per_byte,
    }
    if as_json:
        _json.write(asdict(result) | told)
        return
    for name, value in told.items():
        click.echo(f"{name:<16}{value:.4f}")
    _console.note(
        f"{counted(result.num_tokens, 'token')} in {counted(result.num_windows, 'window')} "
        f"of up to {result.window}"
    )
