"""`pellucid bench`: prefill and decode speed of a model on this machine."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import sys
from typing import TYPE_CHECKING, Any

import click

from pellucid.capacity import KV_FORMATS
from pellucid.cli import _console, _options
from pellucid.loading import LoadOptions

if TYPE_CHECKING:
    from pellucid.llm import LLM


class _Numbers(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions of click
    """ "128,512": a list of ints of at least `low`."""

    name = "N[,N...]"

    def __init__(self, low: int) -> None:
        self.low = low

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        words = str(value).split(",")
        if not all(
            word.strip().isascii() and word.strip().isdigit() and int(word) >= self.low for word in words
        ):
            self.fail(
                f"expected numbers of at least {self.low} separated by commas, got '{value}'", param, ctx
            )
        return [int(word) for word in words]


@click.command(
    epilog="""\b
Examples:
  pellucid bench
  pellucid bench -m gemma-3-270m --prefill 512 --decode 128 --threads 1,2 --json
"""
)
@_options.model
@click.option("--prefill", type=_Numbers(1), default="512", show_default=True, help="Prompt lengths.")
@click.option(
    "--decode", type=_Numbers(2), default="128", show_default=True, help="Numbers of tokens to generate."
)
@click.option(
    "--depth", type=_Numbers(1), default="1", show_default=True, help="Prompt lengths to decode after."
)
@click.option(
    "--runs", type=click.IntRange(1), default=5, show_default=True, help="Runs of each; medians count."
)
@click.option("--threads", type=_Numbers(1), show_default="all CPUs", help="Numbers of threads.")
@click.option("--chunk", type=click.IntRange(1), show_default="128", help="Most prompt tokens of a pass.")
@click.option(
    "--kv-format",
    type=click.Choice(["auto", *KV_FORMATS]),
    metavar="FORMAT",
    show_default="auto",
    help="K and V in memory: auto, f32, f16, bf16 or q8_0.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    model: str,
    prefill: list[int],
    decode: list[int],
    depth: list[int],
    runs: int,
    threads: list[int] | None,
    chunk: int | None,
    kv_format: str | None,
    as_json: bool,
) -> None:
    """Measure prefill and decode in tokens per second.

    Medians of several runs, after one that is not counted.
    """
    from pellucid import __version__
    from pellucid.llm import LLM

    rows: list[dict[str, Any]] = []
    loads: list[float] = []
    info: dict[str, Any] = {}
    longest = max([*(length + 1 for length in prefill), *(d + n for d in depth for n in decode)])
    counts: list[int | None] = [*threads] if threads else [None]
    for count in counts:
        options = LoadOptions(
            num_threads=count,
            prefill_chunk=chunk,
            kv_format=None if kv_format == "auto" else kv_format,
            context_length=longest,
            max_sequences=1,
            prefix_caching=False,
            origin="command line",
        )
        with LLM.from_options(model, options) as llm:
            loads.append(llm.load_seconds)
            used = llm.settings["num_threads"].value
            facts = llm.info
            info = {"name": facts.name, "path": facts.path, "weight_bytes": facts.weight_bytes}
            for length in prefill:
                rows.append(
                    _row("prefill", length, 0, used, [_prefill(llm, length) for _ in range(runs + 1)][1:])
                )
                _say(rows[-1], as_json)
            for start in depth:
                for length in decode:
                    rates = [_decode(llm, start, length) for _ in range(runs + 1)][1:]
                    rows.append(_row("decode", length, start, used, rates))
                    _say(rows[-1], as_json)
    if as_json:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        out = {
            "pellucid": __version__,
            "model": info,
            "machine": {"system": platform.platform(), "cpu": _cpu_name()},
            "load_seconds": statistics.median(loads),
            "peak_rss_bytes": peak,
            "results": rows,
        }
        click.echo(json.dumps(out, indent=2))


def _ids(llm: LLM, length: int) -> list[int]:
    """A fixed sequence of ordinary-looking ids: a full-period walk through the vocabulary."""
    size = llm.tokenizer.vocabulary_size
    return [(7919 * (position + 1) + 13) % size for position in range(length)]


def _prefill(llm: LLM, length: int) -> float:
    """Prompt tokens per second, from the request's entry to its first token."""
    result = llm.generate(_ids(llm, length), max_tokens=1, ignore_eos=True)
    rate = result.timings.prefill_tokens_per_second
    assert rate is not None
    return rate


def _decode(llm: LLM, start: int, length: int) -> float:
    """Generated tokens per second, after the first."""
    result = llm.generate(_ids(llm, start), max_tokens=length, ignore_eos=True)
    rate = result.timings.decode_tokens_per_second
    assert rate is not None
    return rate


def _row(kind: str, tokens: int, depth: int, threads: int, rates: list[float]) -> dict[str, Any]:
    return {
        "kind": kind,
        "tokens": tokens,
        "depth": depth,
        "threads": threads,
        "tokens_per_second": statistics.median(rates),
        "runs": rates,
    }


def _say(row: dict[str, Any], as_json: bool) -> None:
    """One line as soon as it is known: data, or progress where the data is JSON."""
    after = f" after {row['depth']}" if row["kind"] == "decode" else ""
    line = (
        f"{row['kind']:<8} {row['tokens']:>6} tokens{after}, {row['threads']} threads: "
        f"{row['tokens_per_second']:>9.1f} tokens/s  (from {min(row['runs']):.1f} to {max(row['runs']):.1f})"
    )
    if as_json:
        _console.note(line)
    else:
        click.echo(line)


def _cpu_name() -> str:
    """The processor's name, as the operating system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
