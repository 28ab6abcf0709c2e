"""`pellucid info`: what a model is, from its header alone."""

from __future__ import annotations

import sys
import textwrap

import click

from pellucid.capacity import KV_FORMATS
from pellucid.cli import _console, _json, _options
from pellucid.front.loading import DEFAULT_MODEL


@click.command(
    epilog="""\b
Examples:
  pellucid info
  pellucid info gemma-3-270m --context 32768
  pellucid info ./model.gguf --json | jq .formats
"""
)
@click.argument(
    "model", default=DEFAULT_MODEL, envvar="PELLUCID_MODEL", shell_complete=_options.complete_model
)
@click.option(
    "--context", type=click.IntRange(min=1), show_default="the model's", help="Tokens to reckon memory for."
)
@click.option(
    "--kv-format",
    type=click.Choice(["auto", *KV_FORMATS]),
    metavar="FORMAT",
    default="auto",
    show_default=True,
    help="K and V to reckon with: auto, f32, f16, bf16, q8_0 or i16.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(model: str, context: int | None, kv_format: str, as_json: bool) -> None:
    """Show what a model is, without loading it.

    Architecture, sizes, weight formats, vocabulary, special tokens, and memory at a given --context.
    """
    from pellucid.info import inspect_model, size

    info = inspect_model(model)
    tokens = info.context_length if context is None else context
    chosen = info.kv_format if kv_format == "auto" else kv_format
    kv_bytes = info.kv_bytes(tokens, chosen)
    if as_json:
        memory = {"context": tokens, "kv_format": chosen, "weights": info.weight_bytes, "kv": kv_bytes}
        _json.write(info.to_dict() | {"memory_bytes": memory}, indent=2)
        return
    rows = info.rows()
    rows.append((
        "memory",
        f"{size(info.weight_bytes + kv_bytes)}: weights {size(info.weight_bytes)}, "
        f"KV cache of {tokens:,} tokens in {chosen} {size(kv_bytes)}",
    ))  # fmt: skip
    _print(rows)


def _print(rows: list[tuple[str, str]]) -> None:
    """Label and value, wrapped to a terminal's width; one line each into a pipe."""
    labels = max(len(label) for label, _ in rows) + 2
    width = _console.width() if _console.is_terminal(sys.stdout) else 0
    for label, value in rows:
        parts = [value]
        if width:
            wrap = max(20, width - labels)
            parts = textwrap.wrap(_console.visible(value), wrap, break_on_hyphens=False) or [""]
        click.echo(_console.styled(f"{label:<{labels}}", sys.stdout, bold=True) + parts[0])
        for part in parts[1:]:
            click.echo(" " * labels + part)
