"""How fast do many sequences with one shared prefix decode together? Aggregate tokens per second.

    python bench/shared_prefix.py MODEL.gguf ... [--sequences 16,64] [--prefix 512] [--threads 2]

Every prompt is the prefix and 8 tokens of its own; the prefix is in the cache before the clock starts. The time
is that of the whole call, so it includes computing the own tokens. "apart": prompts of the same lengths that share
nothing (their whole prompts are in the cache, too).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from pellucid import LLM

NUM_OWN = 8


def prompts(size: int, count: int, prefix: int, shared: bool) -> list[list[int]]:
    rng = np.random.default_rng(0)
    first = rng.integers(1000, size // 2, prefix).tolist()
    begins = [first if shared else rng.integers(1000, size // 2, prefix).tolist() for _ in range(count)]
    return [begin + rng.integers(1000, size // 2, NUM_OWN).tolist() for begin in begins]


def rate(llm: LLM, asked: list[list[int]], new: int, runs: int) -> float:
    llm.generate(asked, max_tokens=1, ignore_eos=True)
    rates = []
    for _ in range(runs):
        start = time.perf_counter()
        llm.generate(asked, max_tokens=new, ignore_eos=True)
        rates.append(len(asked) * new / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sequences", default="16,64")
    parser.add_argument("--prefix", type=int, default=512)
    parser.add_argument("--new", type=int, default=32, help="tokens generated for each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kinds", default="shared,apart")
    options = parser.parse_args()
    print("| model | sequences | prefix | tokens/s in all |\n|---|---|---|---|")
    for model in options.models:
        counts = [int(count) for count in options.sequences.split(",")]
        context = options.prefix + NUM_OWN + options.new
        with LLM(
            model, num_threads=options.threads, max_sequences=max(counts), context_length=context
        ) as llm:
            for count in counts:
                for kind in options.kinds.split(","):
                    asked = prompts(llm.info.vocabulary_size, count, options.prefix, kind == "shared")
                    found = rate(llm, asked, options.new, options.runs)
                    print(f"| {llm.info.name} | {count} | {kind} | {found:.0f} |", flush=True)


if __name__ == "__main__":
    main()
