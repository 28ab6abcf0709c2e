"""What do more rows in a pass cost? Sequences that decode together, pellucid and llama.cpp in one run.

    python bench/batches.py MODEL.gguf ... [--threads 1,2] [--sequences 1,2,4,8,16] [--repeats 3] [--passes 32]

c(k) is the time of a pass that gives each of k sequences its next token, over that of one sequence. Each measurement
is a process of its own; the engines alternate, medians count. Prompts have 16 tokens, so that the passes are matrix
products before all. Table (Markdown) to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import child
import llamacpp
import machine

PROMPT = 16


def ours(model: Path, threads: int, sequences: list[int], passes: int) -> dict[int, float]:
    """Seconds of a pass of k rows, in this process: all that `LLM.generate` does, without the prompts."""
    from pellucid import LLM

    size = PROMPT + passes + 1
    seconds: dict[int, float] = {}
    with LLM(model, num_threads=threads, context_length=size, prefix_caching=False) as llm:
        vocabulary = llm.tokenizer.vocabulary_size
        for k in sequences:
            prompts = [machine.token_ids(vocabulary, PROMPT, i) for i in range(k)]
            best = {}
            for tokens in (1, passes + 1):
                times = []
                for _ in range(3):
                    start = time.perf_counter()
                    llm.generate(prompts, max_tokens=tokens, ignore_eos=True)
                    times.append(time.perf_counter() - start)
                best[tokens] = min(times)
            seconds[k] = (best[passes + 1] - best[1]) / passes
    return seconds


def ours_apart(model: Path, threads: int, sequences: list[int], passes: int) -> dict[int, float]:
    command = [
        sys.executable,
        __file__,
        str(model),
        "--threads",
        str(threads),
        "--passes",
        str(passes),
        "--here",
    ]
    cost = child.run([*command, "--sequences", ",".join(map(str, sequences))])
    return {int(k): float(s) for k, s in json.loads(cost.output).items()}


def theirs(tool: Path, model: Path, threads: int, sequences: list[int], passes: int) -> dict[int, float]:
    """Seconds of a pass of k rows by llama-batched-bench."""
    most = max(sequences)
    options = f"-t {threads} -c {most * (PROMPT + passes)} -npp {PROMPT} -ntg {passes} --output-format jsonl"
    cost = child.run([str(tool), "-m", str(model), *options.split(), "-npl", ",".join(map(str, sequences))])
    rows = [json.loads(line) for line in cost.output.splitlines() if line.startswith("{")]
    return {int(row["pl"]): float(row["t_tg"]) / passes for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", default="1,2", help="comma-separated numbers of threads")
    parser.add_argument("--sequences", default="1,2,4,8,16", help="comma-separated; the first should be 1")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--passes", type=int, default=32)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the child's part
    arguments = parser.parse_args()
    sequences = [int(word) for word in arguments.sequences.split(",")]
    if arguments.here:
        print(json.dumps(ours(arguments.models[0], int(arguments.threads), sequences, arguments.passes)))
        return
    llamacpp.find_or_build()
    tool = machine.peers_folder() / "llama.cpp-build" / "bin" / "llama-batched-bench"
    engines = {"pellucid": ours_apart, "llama.cpp": lambda *rest: theirs(tool, *rest)}
    print(f"{machine.processor()}, commit {machine.commit()}\n")
    print("| model | threads | engine | " + " | ".join(f"{k} seq." for k in sequences), end=" | ")
    print(" | ".join(f"c({k})" for k in sequences[1:]), "| in all, over llama.cpp |")
    print("|" + " --- |" * (3 + len(sequences) + len(sequences[1:]) + 1))
    for model in arguments.models:
        for threads in map(int, arguments.threads.split(",")):
            samples: dict[str, dict[int, list[float]]] = {name: defaultdict(list) for name in engines}
            for repeat in range(arguments.repeats):
                for name in list(engines) if repeat % 2 == 0 else reversed(list(engines)):
                    print(f"{model.name} -t {threads} round {repeat + 1}: {name}", file=sys.stderr)
                    for k, value in engines[name](model, threads, sequences, arguments.passes).items():
                        samples[name][k].append(value)
            middle = {n: {k: statistics.median(v) for k, v in of.items()} for n, of in samples.items()}
            for name, of in middle.items():
                cells = [model.stem, str(threads), name]
                cells += [f"{k / of[k]:.0f}/s" for k in sequences]
                cells += [f"{of[k] / of[sequences[0]]:.2f}" for k in sequences[1:]]
                cells.append(f"{middle['llama.cpp'][sequences[-1]] / of[sequences[-1]]:.2f}")
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
