"""Which of two ways of loading a model is faster? Both are loaded, and asked by turns.

    python bench/turns.py MODEL.gguf [--settings '{"kv_format": "f16"}' '{"kv_format": "i16"}'] [--prompts 512]
        [--sequences 1,16] [--threads 2] [--rounds 12]

Settings are arguments of `LLM`, as JSON. Prompts are of ordinary-looking ids, others each round; sequences decode 32
tokens each behind prompts of 8. Whatever else the machine does falls on both alike, and the order turns round each
time; least times are compared, and medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

import machine
from pellucid import LLM

NUM_DECODED = 32


def prompts(llm: LLM, count: int, length: int, turn: int) -> list[list[int]]:
    size = llm.tokenizer.vocabulary_size
    return [machine.token_ids(size, length, turn + i) for i in range(count)]


def prefill(llm: LLM, length: int, turn: int) -> float:
    """Seconds of a prompt."""
    result = llm.generate(prompts(llm, 1, length, turn), max_tokens=1, ignore_eos=True)[0]
    return length / (result.timings.prefill_tokens_per_second or float("nan"))


def decode(llm: LLM, count: int, turn: int) -> float:
    """Seconds of a pass of `count` sequences."""
    asked = prompts(llm, count, 8, turn)
    results = llm.generate(asked, max_tokens=NUM_DECODED, ignore_eos=True)
    return count / sum(result.timings.decode_tokens_per_second or 0.0 for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--settings", nargs=2, default=['{"kv_format": "f16"}', '{"kv_format": "i16"}'])
    parser.add_argument("--prompts", default="512")
    parser.add_argument("--sequences", default="1,16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    lengths, counts = (
        [int(n) for n in text.split(",") if n] for text in (options.prompts, options.sequences)
    )
    common: dict[str, Any] = {
        "num_threads": options.threads,
        "context_length": max(*lengths, 8 + NUM_DECODED) + 1,
        "prefix_caching": False,
    }
    both = [LLM(options.model, **{**common, **json.loads(text)}) for text in options.settings]
    asked = [("prompt of", prefill, n) for n in lengths] + [("pass, sequences", decode, n) for n in counts]
    for name, value in machine.describe().items():
        print(f"- {name}: {value}")
    print(f"\n| ms, {options.threads} threads | {' | '.join(options.settings)} | least | medians |")
    print("| --- | --- | --- | --- | --- |")
    for words, measure, number in asked:
        times: list[list[float]] = [[], []]
        for turn in range(options.rounds + 1):  # the first is a warm-up
            for which in (0, 1) if turn % 2 else (1, 0):
                seconds = measure(both[which], number, turn)
                if turn:
                    times[which].append(1e3 * seconds)
            print(".", end="", file=sys.stderr, flush=True)
        cells = [f"{min(part):.1f} ({statistics.median(part):.1f})" for part in times]
        least = min(times[0]) / min(times[1])
        middle = statistics.median(times[0]) / statistics.median(times[1])
        print(f"| {words} {number} | {' | '.join(cells)} | {least:.2f} | {middle:.2f} |", flush=True)


if __name__ == "__main__":
    main()
