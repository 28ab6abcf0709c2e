"""The tables of peers.py: medians, ratios, and how near each comes to the machine's limits."""

from __future__ import annotations

import statistics
from typing import Any

# key: (title, unit, more is better)
MEASURES = {
    "decode": ("decode, 128 tokens", "tokens/s", True),
    "prefill": ("prefill, 512 tokens", "tokens/s", True),
    "sequences_16": ("16 sequences decoding, in all", "tokens/s", True),
    "c4": ("c(4)", "", False),
    "c8": ("c(8)", "", False),
    "c16": ("c(16)", "", False),
    "first_token": ("whole process, one token", "s", False),
    "peak_rss": ("peak memory, 512 + 32 tokens", "MiB", False),
}
OURS = "pellucid"


def values_of(engine: dict[str, Any], key: str) -> list[float]:
    """All samples of a measure. c(k): the time of a pass of k rows over that of one, both from the same round."""
    rounds = engine["rounds"]
    if key.startswith("c") and key[1:].isdigit():
        many, one = f"sequences_{key[1:]}", "sequences_1"
        return [int(key[1:]) * r[one] / r[many] for r in rounds if r.get(one) and r.get(many)]
    return [r[key] for r in rounds if r.get(key) is not None]


def cell(values: list[float]) -> str:
    """Median, and half of the spread in percent of it."""
    if not values:
        return "-"
    middle = statistics.median(values)
    spread = f" ±{(max(values) - min(values)) / 2 / middle * 100:.0f}%" if len(values) > 1 else ""
    return f"{middle:.{0 if middle >= 1000 else 1 if middle >= 10 else 2}f}{spread}"


def ratio(ours: list[float], theirs: list[float], more_is_better: bool) -> str:
    """How many times better ours is, of the medians."""
    if not ours or not theirs:
        return ""
    a, b = statistics.median(ours), statistics.median(theirs)
    return f" ({(a / b if more_is_better else b / a):.2f})"


def table(model: str, threads: str, engines: dict[str, Any]) -> str:
    """A column for each engine; in brackets: how many times better ours is."""
    names = [OURS, *(name for name in engines if name != OURS)]
    rows = [[f"{model}, {threads} thread(s)", *names], ["---"] * (len(names) + 1)]
    for key, (title, unit, more_is_better) in MEASURES.items():
        ours = values_of(engines[OURS], key)
        row = [f"{title}, {unit}" if unit else title, cell(ours)]
        for name in names[1:]:
            values = values_of(engines[name], key)
            row.append(cell(values) + ratio(ours, values, more_is_better))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def beside_the_limit(engines: dict[str, Any]) -> str:
    """Shares of the ceilings: `pellucid bench` probes them in the process of each throughput measurement."""
    rounds = [r for r in engines[OURS]["rounds"] if "ceilings" in r]
    if not rounds:
        return ""
    facts = rounds[0]["ceilings"]
    read = max(r["ceilings"]["read_bytes_per_second"] for r in rounds)
    dot = max((r["ceilings"]["int8_operations_per_second"] or 0) for r in rounds)
    per_token = facts["multiply_adds_per_token"] + facts["multiply_adds_of_the_projection"] / 512
    text = f"Probed in this run: reads {read / 1e9:.1f} GB/s, 8-bit {dot / 1e9:.0f} GOPS (best). "
    text += f"A token reads {facts['bytes_per_token'] / 1e6:.1f} MB. Share of the limit: "
    parts = []
    for name, engine in engines.items():
        decode, prefill = values_of(engine, "decode"), values_of(engine, "prefill")
        if decode and prefill:
            part = f"decode {statistics.median(decode) * facts['bytes_per_token'] / read:.0%}"
            if dot:
                part += f", prefill {2 * per_token * statistics.median(prefill) / dot:.0%}"
            parts.append(f"{name} {part}")
    return text + "; ".join(parts) + "."


def report_of(report: dict[str, Any]) -> str:
    lines = [f"- {key}: {value}" for key, value in {**report["machine"], **report["versions"]}.items()]
    for threads, probes in report["ceilings"].items():
        best = {name: max(probe[name] for probe in probes) for name in probes[0]}
        lines.append(f"- ceilings, {threads} threads: {', '.join(f'{k} {v}' for k, v in best.items())}")
    rounds = [
        r["disturbed"]
        for model in report["results"].values()
        for engines in model.values()
        for engine in engines.values()
        for r in engine["rounds"]
    ]
    lines.append(f"- rounds begun on a busy machine: {sum(rounds)} of {len(rounds)}")
    lines += [f"- {name} is absent: {why}" for name, why in report["absent"].items()]
    for model, by_threads in report["results"].items():
        for threads, engines in by_threads.items():
            shown = {name: engine for name, engine in engines.items() if engine["rounds"]}
            lines += [f"- {n} failed: {e['failed']}" for n, e in engines.items() if "failed" in e]
            if OURS in shown:
                lines += ["", table(model, threads, shown), "", beside_the_limit(shown)]
    return "\n".join(lines)
