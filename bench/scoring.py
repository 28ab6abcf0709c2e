"""How long do HellaSwag items take: pellucid, lm-evaluation-harness over transformers, llama.cpp's own HellaSwag mode?

    python bench/scoring.py MODEL.gguf --items 40 --rounds 3
    python bench/scoring.py MODEL.gguf --only harness-float32 --python PEER/bin/python --folder HF --out results.json
    python bench/scoring.py --table results.json

Every item is a context and four endings, from ../shared/data/eval/hellaswag_400.txt; --items N takes N of them, evenly
spread. pellucid and the harness's `hf` get the same requests through the same method (`loglikelihood`), after a
warm-up, without loading; `hf` runs in the interpreter --python (torch, transformers, lm_eval) on --folder, the same
weights dequantised, in float32 or bfloat16, with the better of the batch sizes 1 and 16. llama.cpp's `llama-perplexity
--hellaswag` reads the same GGUF file; its time is that of N items less that of one, so that loading does not count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import ROOT, describe, peers_folder

DATA = ROOT / "../shared/data/eval/hellaswag_400.txt"
WAYS = ("pellucid", "llama.cpp", "harness-float32", "harness-bfloat16")
LINES = 6  # of an item: context, gold, four endings


def items(path: Path, count: int) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    every = [lines[i : i + LINES] for i in range(0, len(lines), LINES)]
    return [every[i * len(every) // count] for i in range(count)]


# --- inside the process that is measured ------------------------------------------------------------------
def evaluate(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds, and both accuracies, of the requests through one harness model."""
    import logging

    from lm_eval.api.instance import Instance

    chosen = items(arguments.data, arguments.items)
    pairs = [(item[0], " " + ending) for item in chosen for ending in item[2:]]
    requests = [Instance("loglikelihood", {}, pair, i, (None, None, None)) for i, pair in enumerate(pairs)]
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    for batch_size in (1,) if way == "pellucid" else (1, 16):
        model = _model(way, batch_size, arguments)
        model.loglikelihood(requests[:1], disable_tqdm=True)
        start = time.perf_counter()
        answers = model.loglikelihood(requests, disable_tqdm=True)
        seconds = time.perf_counter() - start
        if not found or seconds < found["seconds"]:
            found = {"seconds": seconds, "batch_size": batch_size, **_accuracies(chosen, answers)}
    return found


def _model(way: str, batch_size: int, arguments: argparse.Namespace) -> Any:
    if way == "pellucid":
        from pellucid.evaluation.harness import PellucidLM

        return PellucidLM(str(arguments.model), threads=arguments.threads)
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(arguments.threads)
    dtype = way.removeprefix("harness-")
    return HFLM(pretrained=str(arguments.folder), dtype=dtype, device="cpu", batch_size=batch_size)


def _accuracies(chosen: list[list[str]], answers: list[tuple[float, bool]]) -> dict[str, float]:
    right = right_norm = 0
    for i, item in enumerate(chosen):
        values = [value for value, _ in answers[4 * i : 4 * i + 4]]
        lengths = [value / len(ending) for value, ending in zip(values, item[2:], strict=True)]
        right += values.index(max(values)) == int(item[1])
        right_norm += lengths.index(max(lengths)) == int(item[1])
    return {"acc": right / len(chosen), "acc_norm": right_norm / len(chosen)}


# --- llama.cpp --------------------------------------------------------------------------------------------
def llama_cpp(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = items(arguments.data, arguments.items)
    one, _ = _llama_run(chosen[:1], arguments)
    seconds, accuracy = _llama_run(chosen, arguments)
    return {"seconds": seconds - one, "batch_size": 0, "acc": 0.0, "acc_norm": accuracy}


def _llama_run(chosen: list[list[str]], arguments: argparse.Namespace) -> tuple[float, float]:
    tool = peers_folder() / "llama.cpp-build" / "bin" / "llama-perplexity"
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("".join("\n".join(item) + "\n" for item in chosen))
        file.flush()
        command = [str(tool), "-m", str(arguments.model), "-f", file.name, "--hellaswag"]
        command += ["--hellaswag-tasks", str(len(chosen)), "-t", str(arguments.threads)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    rows = [line.split("\t") for line in done.stdout.splitlines() if line[:1].isdigit()]
    if len(rows) != len(chosen):
        raise RuntimeError(f"llama-perplexity did {len(rows)} of {len(chosen)} items: {done.stderr[-300:]}")
    return seconds, float(rows[-1][1].rstrip("%")) / 100


# --- the outside ------------------------------------------------------------------------------------------
def measure(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    if way == "llama.cpp":
        return llama_cpp(arguments)
    python = sys.executable if way == "pellucid" else arguments.python
    command = [python, __file__, str(arguments.model), "--inside", way, "--items", str(arguments.items)]
    command += ["--threads", str(arguments.threads), "--data", str(arguments.data)]
    command += ["--folder", str(arguments.folder)] if arguments.folder else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way}: {done.stderr.strip()[-400:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(results: dict[str, Any]) -> str:
    """The fastest run of each way: neighbours on a shared machine only add. And how many times pellucid's that is."""
    runs = results["runs"]
    times = {way: min(run["seconds"] / run["items"] for run in runs[way]) for way in WAYS if runs.get(way)}
    lines = ["| | ms an item | times pellucid's | runs | acc_norm |", "|---|---|---|---|---|"]
    for way, seconds in times.items():
        last = runs[way][-1]
        ratio = f"{seconds / times['pellucid']:.2f}" if "pellucid" in times else ""
        lines.append(
            f"| {way} | {1000 * seconds:.0f} | {ratio} | {len(runs[way])} | {last['acc_norm']:.3f} of {last['items']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="pellucid,llama.cpp", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--python", help="an interpreter with torch, transformers and lm_eval")
    parser.add_argument("--folder", type=Path, help="the same weights as transformers reads them")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, help="results, joined with those it has")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--inside", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())))
        return
    if arguments.inside:
        print(json.dumps(evaluate(arguments.inside, arguments)))
        return
    out = arguments.out
    results = json.loads(out.read_text()) if out and out.exists() else {"runs": {}}
    results["machine"] = describe()
    for number in range(arguments.rounds):
        ways = arguments.only.split(",")
        for way in ways if number % 2 == 0 else reversed(ways):
            run = {**measure(way, arguments), "items": arguments.items, "threads": arguments.threads}
            results["runs"].setdefault(way, []).append(run)
            print(way, json.dumps(run), file=sys.stderr)
            if out:
                out.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
