"""pellucid against llama.cpp, side by side in one run: throughput, time to the first token, peak memory.

    python bench/peers.py MODEL.gguf ... [--threads 1,2] [--repeats 5] [--out results.json] [--peer-only]

Every measurement is one process. The engines alternate, in turn first and second, so that whatever else the
machine does falls on both; medians are compared, and the spread is printed beside them. The table goes to
stdout (Markdown), progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import llamacpp
import machine
from ours import Pellucid

PROMPT = "The best way to learn a new skill is"
PREFILL, DECODE = 512, 128
CONTEXT = 1024

# key: (title, unit, whether more is better, what the issue asks of the ratio)
MEASURES = {
    "decode": (f"decode, {DECODE} tokens", "tokens/s", True, 1.0),
    "prefill": (f"prefill, {PREFILL} tokens", "tokens/s", True, 1.5),
    "first_token": ("whole process, one token", "s", False, 1.0),
    "peak_rss": (f"peak memory, {PREFILL} + 32 tokens", "MiB", False, 1.0),
}

Samples = dict[str, list[float]]


def long_prompt(folder: Path) -> Path:
    """A text of about PREFILL tokens in any vocabulary of English (short words: near one token each)."""
    sentence = "The old man sat by the sea and told the boy how he had found his way home in the dark . "
    path = folder / "prompt.txt"
    path.write_text(sentence * (PREFILL // 21))
    return path


def measure(engine: Any, model: Path, threads: int, prompt_file: Path, samples: Samples) -> None:
    """One round: every measure of one engine once, begun when nothing else is running."""
    samples["disturbed"].append(not machine.wait_until_idle())
    prefill, decode = engine.throughput(model, threads=threads, prefill=PREFILL, decode=DECODE)
    samples["prefill"].append(prefill)
    samples["decode"].append(decode)
    samples["first_token"].append(engine.first_token(model, threads=threads, prompt=PROMPT).wall)
    cost = engine.generation(model, threads=threads, prompt_file=prompt_file, context=CONTEXT, decode=32)
    samples["peak_rss"].append(cost.peak_rss / 2**20)


def compare(
    engines: list[Any], model: Path, threads: int, repeats: int, prompt_file: Path
) -> dict[str, Samples]:
    """`repeats` rounds of every engine, alternating; the order turns round each time. One more before,
    dropped: it brings the file into the page cache."""
    samples: dict[str, Samples] = {engine.name: defaultdict(list) for engine in engines}
    for repeat in range(-1, repeats):
        for engine in engines if repeat % 2 == 0 else reversed(engines):
            target = samples[engine.name] if repeat >= 0 else defaultdict(list)
            print(f"{model.name} -t {threads} round {repeat + 1}/{repeats}: {engine.name}", file=sys.stderr)
            measure(engine, model, threads, prompt_file, target)
    return samples


def best(values: list[float], more_is_better: bool) -> float:
    return max(values) if more_is_better else min(values)


def cell(values: list[float]) -> str:
    """Median, and half of the spread in percent of it."""
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / 2 / middle * 100
    digits = 3 if middle < 10 else 1
    return f"{middle:.{digits}f} ±{spread:.0f}%"


def ratio(ours: float, theirs: float, more_is_better: bool) -> float:
    """How many times better ours is."""
    return ours / theirs if more_is_better else theirs / ours


def table(results: list[dict[str, Any]], names: list[str]) -> str:
    """One row for each measure, model and number of threads. Ratio: above 1 means that the first is better;
    of the medians, and of each engine's best round, which a busy machine disturbs least."""
    wanted = len(names) > 1
    header = ["model", "threads", "measure", "unit", *names] + (
        ["ratio", "of the bests", "wanted"] if wanted else []
    )
    rows = [header, ["---"] * len(header)]
    for result in results:
        for key, (title, unit, more_is_better, target) in MEASURES.items():
            values = [result["samples"][name][key] for name in names]
            row = [result["model"], str(result["threads"]), title, unit, *map(cell, values)]
            if wanted:
                row.append(f"**{ratio(*map(statistics.median, values[:2]), more_is_better):.2f}**")
                row.append(f"{ratio(*(best(v, more_is_better) for v in values[:2]), more_is_better):.2f}")
                row.append(f">= {target:.1f}")
            rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", default="1,2", help="comma-separated numbers of threads")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where to write all samples as JSON")
    parser.add_argument("--peer-only", action="store_true", help="measure llama.cpp alone")
    arguments = parser.parse_args()
    peer = llamacpp.find_or_build()
    engines = [peer] if arguments.peer_only else [Pellucid(), peer]
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "versions": {engine.name: engine.version for engine in engines},
        "ceilings": {},
        "results": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        prompt_file = long_prompt(Path(scratch))
        for threads in map(int, arguments.threads.split(",")):
            machine.wait_until_idle()
            report["ceilings"][threads] = machine.ceilings(threads)
            for model in arguments.models:
                samples = compare(engines, model, threads, arguments.repeats, prompt_file)
                report["results"].append({"model": model.stem, "threads": threads, "samples": samples})
    report["machine"]["load_average_after"] = machine.describe()["load_average"]
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1))
    rounds = [
        r
        for result in report["results"]
        for samples in result["samples"].values()
        for r in samples["disturbed"]
    ]
    report["machine"]["rounds_begun_on_a_busy_machine"] = f"{sum(map(int, rounds))} of {len(rounds)}"
    for key, value in {**report["machine"], **report["versions"]}.items():
        print(f"- {key}: {value}")
    for threads, values in report["ceilings"].items():
        print(
            f"- ceiling, {threads} threads: " + ", ".join(f"{name} {value}" for name, value in values.items())
        )
    print()
    print(table(report["results"], [engine.name for engine in engines]))


if __name__ == "__main__":
    main()
