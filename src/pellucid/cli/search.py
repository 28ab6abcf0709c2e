"""`pellucid search`: the most probable output, with a proof or a bound; or what another strategy finds."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _json, _options, _prompt, _strategies

if TYPE_CHECKING:
    from pellucid.search.search import Bounds, SearchResult

# Sampling parameters that the command has flags of its own for.
_OWN = ("max_tokens", "min_tokens", "n")


@click.command(
    cls=_options.SamplingCommand,
    without=_OWN,
    epilog="""\b
Examples:
  pellucid search "The capital of France is" --max-tokens 4
  pellucid search "2 + 2 =" --max-tokens 6 --best 5 --verify
  pellucid search "Once upon a time" --max-tokens 16 --max-seconds 10 --json
  pellucid search "Once upon a time" --max-tokens 16 --strategy diverse --num-beams 6 --groups 3 --diversity 1
  pellucid search "Q: 17 + 25? A:" --max-tokens 8 --strategy self-consistency --temperature 1 --extract "\\d+"

The best outputs go to stdout, a line each: value, how it ended, text. What is known of them (proof, or upper bound and
gap; greedy and beam search on the same prompt) goes to stderr. docs/search.md tells of the strategies.
""",
)
@click.argument("prompt", required=False)
@_options.load_options
@_prompt.file_option
@click.option("--max-tokens", type=click.IntRange(1), required=True, help="Most tokens of an output.")
@click.option(
    "--strategy",
    type=click.Choice(["exact", *_strategies.STRATEGIES]),
    default="exact",
    show_default=True,
    help="exact: the best there is, with a proof. Others take the options that say so.",
)
@click.option("--best", "n", type=click.IntRange(1), show_default="1", help="How many outputs, or samples.")
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
@click.option("--max-memory", type=_options.ByteSize(), show_default="1G", help="Most memory of its nodes.")
@click.option(
    "--num-beams",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="Beams; exact: of the beam search compared.",
)
@click.option(
    "--groups", "num_groups", type=click.IntRange(1), help="diverse: groups of the beams.  [default: 2]"
)
@click.option("--diversity", type=float, help="diverse: nats that a token costs which an earlier group took.")
@click.option("--length-penalty", type=float, help="beams: value = sum / length^this.  [default: 1]")
@click.option(
    "--early-stopping",
    type=click.Choice(["yes", "no", "never"]),
    help="beams: once all are finished, end at once, when no present one is better, or when none can become so.",
)
@click.option(
    "--alpha", type=click.FloatRange(0, 1), help="contrastive: weight of unlikeness.  [default: 0.6]"
)
@click.option("--candidates", "k", type=click.IntRange(1), help="contrastive: tokens compared.  [default: 4]")
@click.option("--by", type=click.Choice(["sum", "mean"]), help="best-of: log-probability, or that per token.")
@click.option(
    "--extract", metavar="REGEX", help="self-consistency: the answer in a text (group 1 if there is one)."
)
@click.option("--weighted", is_flag=True, help="self-consistency: votes count as their samples are probable.")
@click.option(
    "--utility",
    type=click.Choice(["exact", "token_f1", "chrf"]),
    help="minimum-bayes-risk: likeness of two texts.  [default: chrf]",
)
@click.option(
    "--batch", "batch_size", type=click.IntRange(1), default=16, show_default=True, help="Rows a pass."
)
@click.option("--verify", is_flag=True, help="Check the certificate by computing all of it again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(prompt: str | None, **options: Any) -> None:
    """Find the most probable output, with a proof.

    If the budget ends first: the best found, an upper bound on everything else, and the gap in nats. With --strategy:
    beams, samples without replacement, contrastive search, or samples compared with each other.
    """
    text = _prompt.read_prompt(prompt, options["file"])
    said = _options.given(name for name in options if name not in _options.LOAD_NAMES)
    flags = {each.name: each.opts[-1] for each in click.get_current_context().command.params if each.name}
    _strategies.check_options(options["strategy"], said, flags)
    sampling = {name: value for name, value in _options.sampling_values().items() if name not in _OWN}
    if options["strategy"] != "exact":
        taken = ("max_tokens", *_strategies.STRATEGIES[options["strategy"]].options)
        asked = {name: value for name, value in said.items() if name in taken}
        with _options.open_llm() as llm:
            _strategies.run(llm, options["strategy"], text, {**sampling, **asked}, options["as_json"])
        return
    own = ("max_tokens", "objective", "min_tokens", "must_end", "max_nodes", "max_seconds")
    arguments = {name: options[name] for name in (*own, "num_beams", "batch_size")}
    arguments |= {name: options[name] for name in ("n", "max_memory") if options[name] is not None}
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
        _json.write(told)
        return
    for output in result.outputs:
        click.echo(_strategies.output_line(output.value, output.finish_reason, output.text))
    _tell(result)
    if checked is not None:
        _console.note(f"certificate checked: {checked.nodes} distributions computed again")


def _tell(result: SearchResult) -> None:
    if result.certified:
        _console.note(f"certified: nothing else is above {result.upper_bound:.4f}")
    else:
        _console.note(
            f"not certified ({result.ended_by}): everything else is at most {round(result.upper_bound, 4) + 0.0:.4f}, "
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
