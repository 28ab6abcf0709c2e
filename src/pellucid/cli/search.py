"""`pellucid search`: the most probable output, with a proof or a bound."""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _options

if TYPE_CHECKING:
    from pellucid.search import Bounds, SearchOutput, SearchResult

# Sampling parameters that the command has flags of its own for.
_OWN = ("max_tokens", "min_tokens", "n")


class _Command(_options.SamplingCommand):
    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not any(isinstance(each, _options.SamplingOption) for each in self.params):
            from pellucid.sampling.params import SamplingParams

            fields = (field for field in SamplingParams.fields() if not field.in_python_only)
            self.params.extend(_options.SamplingOption(field) for field in fields if field.name not in _OWN)
        return super().get_params(ctx)


@click.command(
    cls=_Command,
    epilog="""\b
Examples:
  pellucid search "The capital of France is" --max-tokens 4
  pellucid search "2 + 2 =" --max-tokens 6 --best 5 --verify
  pellucid search "Once upon a time" --max-tokens 16 --max-seconds 10 --json

The best outputs go to stdout, a line each: log-probability, how it ended, text. What is known of them (proof, or
upper bound and gap; greedy and beam search on the same prompt) goes to stderr.
""",
)
@click.argument("prompt", required=False)
@_options.load_options
@click.option(
    "-f", "--file", type=click.Path(dir_okay=False), help="Read the prompt from a file (- is stdin)."
)
@click.option("--max-tokens", type=click.IntRange(1), required=True, help="Most tokens of an output.")
@click.option("--best", "n", type=click.IntRange(1), default=1, show_default=True, help="How many outputs.")
@click.option(
    "--objective",
    type=click.Choice(["logprob", "per_token", "per_length"]),
    default="logprob",
    show_default=True,
    help="What is maximised; per_length: the best of every length.",
)
@click.option(
    "--min-tokens", type=click.IntRange(0), default=0, show_default=True, help="Forbid the end before."
)
@click.option("--must-end", is_flag=True, help="Only outputs that end by themselves.")
@click.option(
    "--max-nodes", type=click.IntRange(1), default=100_000, show_default=True, help="Most prefixes opened."
)
@click.option("--max-seconds", type=float, help="Most seconds.")
@click.option(
    "--num-beams", type=click.IntRange(0), default=4, show_default=True, help="Of the beam search compared."
)
@click.option(
    "--batch", "batch_size", type=click.IntRange(1), default=16, show_default=True, help="Rows a pass."
)
@click.option("--verify", is_flag=True, help="Check the certificate by computing all of it again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(prompt: str | None, **options: Any) -> None:
    """Find the most probable output, with a proof.

    If the budget ends first: the best found, an upper bound on everything else, and the gap in nats.
    """
    text = _console.read_text(options["file"], prompt)
    if text is None:
        raise click.UsageError("no prompt: give it as an argument, with --file, or on stdin")
    own = ("max_tokens", "n", "objective", "min_tokens", "must_end", "max_nodes", "max_seconds")
    arguments = {name: options[name] for name in (*own, "num_beams", "batch_size")}
    sampling = {name: value for name, value in _options.sampling_values().items() if name not in _OWN}
    with _options.open_llm() as llm:
        progress = _Progress() if _console.is_terminal(sys.stderr) else None
        try:
            result = llm.search(text, on_progress=progress, **arguments, **sampling)
        finally:
            if progress is not None:
                progress.close()
        checked = None
        if options["verify"] and result.certificate is not None:
            checked = result.certificate.verify(llm)
            if not checked:
                from pellucid.errors import PellucidError

                raise PellucidError(f"the certificate does not hold {checked.problem}")
    if options["as_json"]:
        told = result.to_dict() | ({"verified_nodes": checked.nodes} if checked is not None else {})
        click.echo(json.dumps(told, ensure_ascii=False, allow_nan=False))
        return
    for output in result.outputs:
        click.echo(_line(output))
    _tell(result)
    if checked is not None:
        _console.note(f"certificate checked: {checked.nodes} distributions computed again")


def _line(output: SearchOutput) -> str:
    return f"{output.value:>10.4f}  {output.finish_reason:<6}  {_console.visible(output.text)!r}"


def _tell(result: SearchResult) -> None:
    if result.certified:
        _console.note(f"certified: nothing else is above {result.upper_bound:.4f}")
    else:
        _console.note(
            f"not certified ({result.ended_by}): everything else is at most {result.upper_bound:.4f}, "
            f"gap {result.gap:.4f} nats"
        )
    for name, other, wrong in (
        ("greedy", result.greedy, result.greedy_error),
        (f"beam {result.num_beams}", result.beam, result.beam_error),
    ):
        if other is not None:
            how = "search error" if wrong else "as good"
            _console.note(f"{name}: {other.value:.4f} {_console.visible(other.text)!r} ({how})")
    work = result.work
    _console.note(
        f"P(empty) {result.probability_empty:.3g}; {result.nodes} nodes, {result.nodes_per_second:.0f}/s; "
        f"{work.rows} rows computed, {work.reused} reused, {result.seconds:.2f} s"
    )


class _Progress:
    """One line on a terminal's stderr, rewritten a few times a second."""

    def __init__(self) -> None:
        self._start = self._last = perf_counter()
        self._shown = False

    def __call__(self, bounds: Bounds) -> None:
        now = perf_counter()
        if now - self._last < 0.1:
            return
        self._last = now
        rate = bounds.nodes / (now - self._start)
        line = (
            f"best {bounds.lower:.4f}  bound {bounds.upper:.4f}  {bounds.nodes} nodes  {bounds.open} open"
            f"  {rate:.0f}/s"
        )
        sys.stderr.write("\r\x1b[K" + line[: _console.width() - 1])
        sys.stderr.flush()
        self._shown = True

    def close(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
