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
from pellucid.front.loading import ACTIVATIONS, LoadOptions, begin

if TYPE_CHECKING:
    from pellucid.limits import Limits
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
  pellucid bench --sequences 1,4,8,16 --decode 32
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
    "--sequences", type=_Numbers(1), default="1", show_default=True, help="Numbers decoding at a time."
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
    help="K and V in memory: auto, f32, f16, bf16, q8_0 or i16.",
)
@click.option(
    "--activations",
    type=click.Choice(ACTIVATIONS),
    show_default="f32",
    help=_options.BF16_HELP,
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    model: str,
    prefill: list[int],
    decode: list[int],
    depth: list[int],
    sequences: list[int],
    runs: int,
    threads: list[int] | None,
    chunk: int | None,
    kv_format: str | None,
    activations: str | None,
    as_json: bool,
) -> None:
    """Measure prefill and decode beside the machine's limits.

    Tokens per second; medians of several runs, after one that is not counted. The ceilings are probed in the
    same process and on the same threads: decoding reads the weights once for each token, so its speed is held
    against the read bandwidth; prefill against the peak of 8-bit multiply-adds. With several sequences the
    speed is theirs in all, and c(k) is the time of a pass of k rows over that of one row.
    """
    from pellucid import __version__
    from pellucid.llm import LLM

    rows: list[dict[str, Any]] = []
    loads: list[float] = []
    ceilings: list[dict[str, Any]] = []
    info: dict[str, Any] = {}
    peak = 0
    longest = max([*(length + 1 for length in prefill), *(d + n for d in depth for n in decode)])
    counts: list[int | None] = [*threads] if threads else [None]
    arena = click.get_current_context().obj  # one model's: the first's
    for count in counts:
        options = LoadOptions(
            num_threads=count,
            prefill_chunk=chunk,
            context_length=longest,
            kv_format=None if kv_format == "auto" else kv_format,
            activations=activations,
            max_sequences=max(sequences),
            prefix_caching=False,
            origin="command line",
        )
        with LLM.from_begun(begin(model, options, arena=arena)) as llm:
            arena = None
            loads.append(llm.load_seconds)
            facts = llm.info
            info = {"name": facts.name, "path": facts.path, "weight_bytes": facts.weight_bytes}
            info |= {name: llm.settings[name].value for name in ("kv_format", "activations")}
            measured = _measure(llm, prefill, decode, depth, sequences, runs, as_json)
            peak = max(peak, _peak_rss())  # before the probe, which takes memory of its own
            limits = llm.limits()
            assert limits is not None  # the backend is the native one
            _beside(limits, measured)
            if not as_json:
                _say_limits(limits, measured)
            ceilings.append(limits.to_dict())
            rows += measured
    if as_json:
        out = {
            "pellucid": __version__,
            "model": info,
            "machine": {"system": platform.platform(), "cpu": _cpu_name()},
            "load_seconds": statistics.median(loads),
            "peak_rss_bytes": peak,
            "ceilings": ceilings,
            "results": rows,
        }
        click.echo(json.dumps(out, indent=2))


def _measure(
    llm: LLM,
    prefill: list[int],
    decode: list[int],
    depth: list[int],
    sequences: list[int],
    runs: int,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Every row of one number of threads, said as soon as it is known."""
    threads = llm.settings["num_threads"].value
    rows: list[dict[str, Any]] = []
    for length in prefill:
        rates = [_prefill(llm, length) for _ in range(runs + 1)][1:]
        rows.append(_row("prefill", length, 0, 1, threads, rates))
        _say(rows[-1], as_json)
    for start in depth:
        for length in decode:
            for number in sequences:
                rates = [_decode(llm, start, length, number) for _ in range(runs + 1)][1:]
                rows.append(_row("decode", length, start, number, threads, rates))
                _say(rows[-1], as_json)
    return rows


def _beside(limits: Limits, rows: list[dict[str, Any]]) -> None:
    """Adds to each row the part of its ceiling ("of_ceiling", None where there is none), and c(k)."""
    alone = {(r["tokens"], r["depth"]): r["tokens_per_second"] for r in rows if r["sequences"] == 1}
    for row in rows:
        speed, number = row["tokens_per_second"], row["sequences"]
        if row["kind"] == "prefill":
            row["of_ceiling"] = limits.prefill_share(speed, row["tokens"])
            continue
        row["of_ceiling"] = limits.decode_share(speed) if number == 1 else None
        single = alone.get((row["tokens"], row["depth"]))
        row["pass_over_one_row"] = None if single is None else number * single / speed


def _peak_rss() -> int:
    """Bytes; Linux counts KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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


def _decode(llm: LLM, start: int, length: int, sequences: int) -> float:
    """Generated tokens per second after the first of each, of all sequences together."""
    ids = _ids(llm, start + sequences)
    prompts = [ids[i : i + start] for i in range(sequences)]
    rates = [
        result.timings.decode_tokens_per_second
        for result in llm.generate(prompts, max_tokens=length, ignore_eos=True)
    ]
    return sum(rate for rate in rates if rate is not None)


def _row(
    kind: str, tokens: int, depth: int, sequences: int, threads: int, rates: list[float]
) -> dict[str, Any]:
    return {
        "kind": kind,
        "tokens": tokens,
        "depth": depth,
        "sequences": sequences,
        "threads": threads,
        "tokens_per_second": statistics.median(rates),
        "runs": rates,
    }


def _say(row: dict[str, Any], as_json: bool) -> None:
    """One line as soon as it is known: data, or progress where the data is JSON."""
    after = f" after {row['depth']}" if row["kind"] == "decode" else ""
    after += f", {row['sequences']} sequences" if row["sequences"] > 1 else ""
    line = (
        f"{row['kind']:<8} {row['tokens']:>6} tokens{after}, {row['threads']} threads: "
        f"{row['tokens_per_second']:>9.1f} tokens/s  (from {min(row['runs']):.1f} to {max(row['runs']):.1f})"
    )
    if as_json:
        _console.note(line)
    else:
        click.echo(line)


def _say_limits(limits: Limits, rows: list[dict[str, Any]]) -> None:
    """The ceilings, and for each row what it reached."""
    dot = "" if limits.dot is None else f", 8-bit multiply-adds {limits.dot / 1e9:.0f} GOPS"
    click.echo(f"ceilings, {limits.threads} threads: reads {limits.read / 1e9:.1f} GB/s{dot}")
    for row in rows:
        name = f"{row['kind']} {row['tokens']}" + (f" after {row['depth']}" if row["depth"] else "")
        if row["of_ceiling"] is not None:
            what = "8-bit peak" if row["kind"] == "prefill" else "read bandwidth"
            note = "" if row["kind"] == "prefill" else f" ({limits.bytes_per_token / 1e6:.1f} MB a token)"
            click.echo(f"  {name}: {row['of_ceiling']:.0%} of the {what}{note}")
        elif row.get("pass_over_one_row") is not None:
            click.echo(f"  {name}: c({row['sequences']}) = {row['pass_over_one_row']:.2f}")


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
