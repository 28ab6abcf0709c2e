"""What driving by hand costs: fork() and rewind() against the length, and a step() beside generate() and stream().

    python bench/generation.py MODEL [--threads N]

Microseconds are medians over many calls. `fork` is `Generation.fork()` of one whose tokens are all computed, `held` the
same one level below; `rewind` takes one token, or half of all tokens, back. Steps and generate() are alternated.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median
from time import perf_counter

from machine import describe
from pellucid import LLM

LENGTHS = (128, 512, 2048, 4000, 8000)
TOKENS = 64


def micros(calls: int, run, after=lambda result: None) -> float:
    times = []
    for _ in range(calls):
        start = perf_counter()
        result = run()
        times.append(perf_counter() - start)
        after(result)
    return median(times) * 1e6


def lengths_table(llm: LLM) -> None:
    print("| tokens | fork µs | held fork µs | rewind(1) µs | rewind to half µs |")
    print("|---|---|---|---|---|")
    for length in LENGTHS:
        if length + 64 > llm.context_length:
            continue
        ids = [100 + i % 1000 for i in range(length)]
        generation = llm.begin(ids, ignore_eos=True)
        generation.peek()
        fork = micros(200, generation.fork, lambda made: made.close())
        held = micros(200, generation._held.fork, lambda made: made.close())
        ones, halves = [], []
        for _ in range(100):
            child = generation.fork()
            ones.append(micros(1, child.rewind))
            halves.append(micros(1, partial(child.rewind, to=length // 2)))
            child.close()
        print(f"| {length} | {fork:.1f} | {held:.1f} | {median(ones):.1f} | {median(halves):.1f} |")
        generation.close()


def steps_table(llm: LLM) -> None:
    generated, streamed, stepped, peeked = [], [], [], []
    for turn in range(6):
        options = {"max_tokens": TOKENS, "ignore_eos": True, "cache_salt": str(turn)}
        prompt = "Once upon a time there was a"
        start = perf_counter()
        expected = llm.generate(prompt, **options).token_ids
        generated.append((perf_counter() - start) / TOKENS)
        start = perf_counter()
        found = [chunk.token_id for chunk in llm.stream(prompt, **{**options, "cache_salt": f"{turn} s"})]
        streamed.append((perf_counter() - start) / TOKENS)
        assert found == expected
        for look, times in ((False, stepped), (True, peeked)):
            start = perf_counter()
            generation = llm.begin(prompt, **{**options, "cache_salt": f"{turn} {look}"})
            for _ in range(TOKENS):
                step = generation.peek()
                if look:
                    step.top(5)
                step.choose()
            times.append((perf_counter() - start) / TOKENS)
            assert generation.tokens == expected
            generation.close()
    print("\n| per token, prompt included | ms |")
    print("|---|---|")
    rows = {
        "generate()": generated,
        "stream()": streamed,
        "step()": stepped,
        "peek(), top(5), choose()": peeked,
    }
    for name, times in rows.items():
        print(f"| {name} | {median(times) * 1e3:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print(describe())
    with LLM(args.model, num_threads=args.threads) as llm:
        lengths_table(llm)
        steps_table(llm)


if __name__ == "__main__":
    main()
