"""pellucid against its peers, side by side in one run: throughput, time to the first token, peak memory.

    python bench/peers.py MODEL.gguf ... [--threads 1,2] [--rounds 3] [--peers llama.cpp,...] [--out results.json]
    python bench/peers.py --table results.json          the table of what was measured before

Every measurement is one process. The engines alternate, the order turning round each time, so that whatever else
the machine does falls on all; medians are compared, and the spread is printed beside them. The table goes to
stdout (Markdown), progress to stderr. With --out, rounds join those that the file has, so that a long run can be
made in pieces; --fresh begins anew. A peer that cannot be had is a line that says why.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
from llamacpp import IkLlamaCpp, LlamaCpp
from ours import Pellucid
from pypeers import PEERS
from report import report_of

PROMPT = "The best way to learn a new skill is"
PREFILL, DECODE, CONTEXT = 512, 128, 1024
SEQUENCES, EACH = [1, 4, 8, 16], 32  # sequences at a time, tokens of each
MEASURES = ("throughput", "first_token", "memory")
DEFAULT = "llama.cpp,ik_llama.cpp,openvino-int8,openvino-int4,ctranslate2,transformers-fp32,transformers-bf16"


def long_prompt(folder: Path) -> Path:
    """A text of about PREFILL tokens in any vocabulary of English (short words: near one token each)."""
    sentence = "The old man sat by the sea and told the boy how he had found his way home in the dark . "
    path = folder / "prompt.txt"
    path.write_text(sentence * (PREFILL // 21))
    return path


def measure(engine: Any, model: Path, threads: int, prompt_file: Path, arguments: Any) -> dict[str, Any]:
    """One round: every measure of one engine once, begun when nothing else is running."""
    only: list[str] = arguments.only.split(",")
    samples: dict[str, Any] = {"disturbed": not machine.wait_until_idle(arguments.idle_wait)}
    if "throughput" in only:
        got = engine.throughput(
            model, threads=threads, prefill=PREFILL, decode=DECODE, each=EACH, sequences=SEQUENCES
        )
        samples |= {"prefill": got.prefill, "decode": got.decode}
        samples |= {f"sequences_{number}": rate for number, rate in got.sequences.items()}
        if got.ceilings:
            samples["ceilings"] = got.ceilings
    if "first_token" in only:
        samples["first_token"] = engine.first_token(model, threads=threads, prompt=PROMPT).wall
    if "memory" in only:
        cost = engine.generation(
            model, threads=threads, prefill=PREFILL, prompt_file=prompt_file, context=CONTEXT, decode=32
        )
        samples["peak_rss"] = cost.peak_rss / 2**20
    return samples


def available(names: list[str], models: list[Path], absent: dict[str, str]) -> list[Any]:
    """The engines of these names that can be had; why not, for the others."""
    every = {engine.name: engine for engine in [Pellucid(bf16=True), LlamaCpp(), IkLlamaCpp(), *PEERS]}
    unknown = [name for name in names if name not in every]
    if unknown:
        sys.exit(f"no peer {', '.join(unknown)}; there are: {', '.join(every)}")
    found: list[Any] = [Pellucid()]
    for name in names:
        try:
            for model in models:
                every[name].prepare(model)
        except (OSError, subprocess.CalledProcessError) as error:
            absent[name] = " ".join(str(error).split())[-300:]
            print(f"{name}: absent: {absent[name]}", file=sys.stderr)
        else:
            absent.pop(name, None)
            found.append(every[name])
    return found


def rounds(
    engines: list[Any],
    model: Path,
    threads: int,
    arguments: Any,
    prompt_file: Path,
    into: dict[str, Any],
    save: Callable[[], None],
) -> None:
    """`rounds` of every engine (slow ones: one), alternating; before them one token of each, dropped: it brings
    the files into the page cache and writes bytecode."""
    for engine in engines:
        if not engine.slow:
            with contextlib.suppress(RuntimeError):  # told in its first round
                engine.first_token(model, threads=threads, prompt=PROMPT)
    for number in range(arguments.rounds):
        for engine in engines if number % 2 == 0 else reversed(engines):
            if engine.slow and number > 0:
                continue
            print(f"{model.name} -t {threads} round {number + 1}: {engine.name}", file=sys.stderr, flush=True)
            kept = into.setdefault(engine.name, {"rounds": []})
            try:
                kept["rounds"].append(measure(engine, model, threads, prompt_file, arguments))
                kept.pop("failed", None)
            except RuntimeError as error:
                kept["failed"] = " ".join(str(error).split())[-300:]
                print(f"{engine.name}: {kept['failed']}", file=sys.stderr)
            save()  # an interrupted run keeps what it measured


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--threads", default="1,2", help="comma-separated numbers of threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peers",
        default=DEFAULT,
        help=f"default: {DEFAULT}; there are also vllm and, for files in BF16, pellucid-bf16 (--activations bf16)",
    )
    parser.add_argument("--only", default=",".join(MEASURES), help=f"of {', '.join(MEASURES)}")
    parser.add_argument(
        "--idle-wait", type=float, default=30.0, help="seconds a round waits for an idle machine, then begins"
    )
    parser.add_argument("--out", type=Path, help="where all samples are kept as JSON")
    parser.add_argument("--fresh", action="store_true", help="forget what --out holds")
    parser.add_argument("--table", type=Path, help="print the table of a file that --out wrote, and end")
    return parser.parse_args()


def read_report(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text())
    if not isinstance(report, dict) or not report.keys() >= {"versions", "absent", "ceilings", "results"}:
        sys.exit(f"{path} is not a file that --out of this script wrote; name another, or say --fresh")
    return report


def main() -> None:
    arguments = parse()
    if arguments.table:
        print(report_of(read_report(arguments.table)))
        return
    if not arguments.models:
        sys.exit("name at least one GGUF file")
    report: dict[str, Any] = {"versions": {}, "absent": {}, "ceilings": {}, "results": {}}
    if arguments.out and arguments.out.exists() and not arguments.fresh:
        report = read_report(arguments.out)
    arguments.models = [model.absolute() for model in arguments.models]
    names = [name for name in arguments.peers.split(",") if name]
    engines = available(names, arguments.models, report["absent"])
    report["machine"] = machine.describe()
    report["versions"] |= {engine.name: engine.version for engine in engines}

    def save() -> None:
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1))

    with tempfile.TemporaryDirectory() as scratch:
        prompt_file = long_prompt(Path(scratch))
        for threads in arguments.threads.split(","):
            machine.wait_until_idle(arguments.idle_wait)
            report["ceilings"].setdefault(threads, []).append(machine.ceilings(int(threads)))
            for model in arguments.models:
                into = report["results"].setdefault(model.stem, {}).setdefault(threads, {})
                rounds(engines, model, int(threads), arguments, prompt_file, into, save)
    print(report_of(report))


if __name__ == "__main__":
    main()
