"""`pellucid ab`: a text with and without interventions, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _json, _options, _prompt
from pellucid.glass.words import cells, padded

if TYPE_CHECKING:
    from pellucid.front.comparing import Comparison
    from pellucid.outputs import Alternative

_ANY_WIDTH = 1 << 20  # no terminal, no limit


@click.command(
    cls=_options.SamplingCommand,
    epilog="""\b
Examples:
  echo '[{"kind": "zero_ablate", "layer": 3, "part": "mlp"}]' > ablate.json
  pellucid ab "The capital of France is" -i ablate.json --max-tokens 8
  pellucid ab -i ablate.json --json "Once upon a time" --max-tokens 20 | jq '.steps[].divergence'

The table goes along the tokens of the run without interventions; both columns are after the same tokens. KL: how far
the two distributions are apart, in nats. docs/interventions.md describes the file.
""",
)
@click.argument("prompt", required=False)
@_options.load_options
@click.option(
    "-i",
    "--interventions",
    "path",
    type=click.Path(dir_okay=False),
    required=True,
    help="JSON file of interventions.",
)
@_prompt.file_option
@_prompt.special_option
@click.option(
    "--top", type=click.IntRange(1, 100), default=3, show_default=True, help="Tokens of each distribution."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(prompt: str | None, **options: Any) -> None:
    """Compare with and without interventions.

    The text is PROMPT, or --file, or what is piped in; "-" is stdin.
    """
    from pellucid.glass.intervention_file import load_interventions

    text = _prompt.read_prompt(prompt, options["file"])
    interventions = load_interventions(options["path"])
    with _options.open_llm() as llm:
        found = llm.ab(
            text,
            interventions,
            top=options["top"],
            parse_special=options["parse_special"],
            **{"max_tokens": 16, **_options.sampling_values()},
        )
    for line in found.with_.notes:
        _console.note(line)
    if options["as_json"]:
        _json.write(found.to_dict())
    else:
        click.echo(_table(found, _console.width(_ANY_WIDTH)))


def _table(found: Comparison, width: int) -> str:
    """width: of the terminal, in cells; where the table is wider, each distribution has a line of its own."""
    lines = [
        f"without: {_console.visible(found.without.text)}",
        f"with:    {_console.visible(found.with_.text)}",
    ]
    parts = "the same tokens" if found.parts_at is None else f"they part at token {found.parts_at}"
    lines += [f"{parts}; the first {len(found.steps)} distributions along the first:", ""]
    rows = [("token", "p without", "with", "KL", "best without", "best with")]
    for step in found.steps:
        rows.append(
            (
                _console.visible(step.text).replace(" ", "\u00b7"),
                f"{exp(step.logprob_without):.3f}",
                f"{exp(step.logprob_with):.3f}",
                f"{step.divergence:.3f}",
                _best(step.top_without),
                _best(step.top_with),
            )
        )
    table = _aligned(rows)
    if max(map(cells, table)) <= width:
        return "\n".join(lines + table)
    for row, line in zip(rows, _aligned([row[:4] for row in rows]), strict=True):
        lines.append(line)
        if row is not rows[0]:
            lines += [f"  without  {row[4]}", f"  with     {row[5]}"]
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they need be; numbers to the right."""
    widths = [max(cells(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(w) if i in (1, 2, 3) else padded(cell, w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _best(top: tuple[Alternative, ...]) -> str:
    return " ".join(f"{_console.visible(a.text).replace(' ', chr(0xB7))} {exp(a.logprob):.2f}" for a in top)
