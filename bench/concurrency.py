"""Many callers at once that share a long prefix: AsyncLLM beside llama.cpp's server with as many slots.

    python bench/concurrency.py MODEL.gguf [--callers 16,64] [--prefix 512] [--new 32] [--threads 2] [--engine both]

All callers start together; each has the prefix, 8 tokens of its own and asks for `new` tokens, greedy, past the end of
the text. Aggregate tokens/s over the whole time from the start to the last answer, in two rounds:
  first: one request before them has computed the prefix (with us that is everybody's; a server's slot has its own);
  again: other own tokens, so that each slot of the server has the prefix too.
Time to first token: medians over the callers, of the second round. Table (Markdown) to stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from llama_server import completion, running

NUM_OWN = 8
PORT = 18237


def prompts(callers: int, prefix: int, round_number: int) -> list[list[int]]:
    """The same ids for both engines; below 40,000, ordinary pieces of text."""
    head = [1000 + (7919 * i) % 30000 for i in range(prefix)]
    return [
        [*head, *(1000 + (31 * caller + 977 * i + 5003 * round_number) % 30000 for i in range(NUM_OWN))]
        for caller in range(callers)
    ]


def ours(args: argparse.Namespace, callers: int) -> list[tuple[float, float]]:
    """(seconds of all, median seconds to the first token) of each round."""
    from pellucid import LLM, AsyncLLM

    context = args.prefix + NUM_OWN + args.new
    options = {"num_threads": args.threads, "max_sequences": callers, "context_length": context}

    async def caller(allm: AsyncLLM, prompt: list[int]) -> float:
        start, first, count = time.perf_counter(), 0.0, 0
        async for _ in allm.stream(prompt, max_tokens=args.new, ignore_eos=True):
            first = first or time.perf_counter() - start
            count += 1
        if count != args.new:
            raise RuntimeError(f"{count} tokens instead of {args.new}")
        return first

    async def rounds() -> list[tuple[float, float]]:
        found = []
        async with AsyncLLM(LLM(args.model, **options)) as allm:
            await caller(allm, prompts(1, args.prefix, 9)[0])
            for number in (1, 2):
                start = time.perf_counter()
                firsts = await asyncio.gather(
                    *(caller(allm, prompt) for prompt in prompts(callers, args.prefix, number))
                )
                found.append((time.perf_counter() - start, statistics.median(firsts)))
            allm.llm.close()
        return found

    return asyncio.run(rounds())


def theirs(args: argparse.Namespace, callers: int) -> list[tuple[float, float]]:
    """llama-server: a slot for each caller, its context split among them, one thread of ours for each."""
    context = callers * (args.prefix + NUM_OWN + args.new + 8)

    def one(prompt: list[int], firsts: list[float]) -> None:
        start, first, count = time.perf_counter(), 0.0, 0
        for event in completion(PORT, prompt, args.new):
            first = first or time.perf_counter() - start
            count = event.get("tokens_predicted", count)  # in the last event
        if count != args.new:
            raise RuntimeError(f"{count} tokens instead of {args.new}")
        firsts.append(first)

    with running(args.model, PORT, args.threads, f"-c {context} -np {callers} {args.server}"):
        one(prompts(1, args.prefix, 9)[0], [])
        found = []
        for number in (1, 2):
            firsts: list[float] = []
            threads = [
                threading.Thread(target=one, args=(prompt, firsts))
                for prompt in prompts(callers, args.prefix, number)
            ]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if len(firsts) != callers:
                raise RuntimeError(f"{callers - len(firsts)} callers got no answer")
            found.append((time.perf_counter() - start, statistics.median(firsts)))
        return found


ENGINES: dict[str, Callable[[argparse.Namespace, int], list[tuple[float, float]]]] = {
    "pellucid": ours,
    "llama.cpp": theirs,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--callers", default="16,64")
    parser.add_argument("--prefix", type=int, default=512)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--server", default="", help="more options of llama-server, such as ' --swa-full'")
    parser.add_argument("--json", action="store_true", help="one JSON object a line in place of the table")
    args = parser.parse_args()
    if not args.json:
        print("| model | callers | engine | first round, tokens/s | again, tokens/s | first token, again |")
        print("|---|---|---|---|---|---|")
    for callers in map(int, args.callers.split(",")):
        for name in ENGINES if args.engine == "both" else [args.engine]:
            (first, _), (again, wait) = ENGINES[name](args, callers)
            rates = [callers * args.new / seconds for seconds in (first, again)]
            if args.json:
                row = {
                    "model": args.model.stem,
                    "callers": callers,
                    "engine": name,
                    "rates": rates,
                    "first": wait,
                }
                print(json.dumps(row), flush=True)
            else:
                shown = f"{rates[0]:.0f} | {rates[1]:.0f} | {wait:.2f} s |"
                print(f"| {args.model.stem} | {callers} | {name} | {shown}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
