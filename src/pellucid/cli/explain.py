"""`pellucid explain`: the mechanism of a generation, told on the live model."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _json, _options, _prompt

if TYPE_CHECKING:
    from pellucid.glass.explain import Explanation


@click.command(
    cls=_options.SamplingCommand,
    without=("logprobs",),  # what is told has them
    epilog="""\b
Examples:
  pellucid explain "The quick brown fox"
  pellucid explain "The quick brown fox" --max-tokens 5 --temperature 0.8 --top-p 0.9 --seed 1
  pellucid explain --chat "Name a colour." --top 5
  pellucid explain "2 + 2 =" --json | jq '.passes[].choice'

Plain text, in the order in which things happen: the tokens; for every turn the input, what of it was reused and what
was computed, what each row predicts, the choice, the token that is appended; at the end the whole text once more in
one go, to see that the bits are the same. Each turn is told when it is done. --max-tokens is 3 unless given.
""",
)
@click.argument("prompt", required=False)
@_options.load_options
@_prompt.file_option
@_prompt.chat_option
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="Predictions told of a row."
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Rows of the prompt told, the last ones.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(prompt: str | None, **options: Any) -> None:
    """Tell how a text is generated, turn by turn.

    The text is PROMPT, or --file, or what is piped in; "-" is stdin.
    """
    from pellucid.glass.explain import explain
    from pellucid.glass.telling import tell_beginning, tell_end, tell_turn

    width = max(40, _console.width()) if _console.is_terminal(sys.stdout) else 80

    def tell_on(told: Explanation) -> None:
        """What has just become known, at once."""
        number = len(told.passes)
        _write(tell_turn(told, number, width) if number else tell_beginning(told, width))

    text = _prompt.read_prompt(prompt, options["file"])
    sampling = {"max_tokens": 3, **_options.sampling_values()}
    given = _prompt.messages(text) if options["chat"] else text
    with _options.open_llm() as llm:
        on_turn = None if options["as_json"] else tell_on
        told = explain(llm, given, top=options["top"], rows=options["rows"], on_turn=on_turn, **sampling)
    if options["as_json"]:
        _json.write(told.to_dict())
    else:
        _write(tell_end(told, width))
    if not all(told.check.same):
        from pellucid.errors import PellucidError

        raise PellucidError("the check failed: computed in one go, the logits have other bits; this is a bug")


def _write(lines: Iterable[str]) -> None:
    _console.write("".join(line + "\n" for line in lines))
