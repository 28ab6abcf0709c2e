"""What does a longer context cost a decode step? Time against positions, beside the floor of reading K and V once.

    python bench/context.py MODEL.gguf ... [--kv i16,q8_0] [--threads 1,2] [--positions 128,1024,4096,8192]

The step's time at each depth is the smallest of several passes of one row. The slope is the least-squares line through
them; the floor is the bytes that 1,000 more positions add to a step (layers with a window add none beyond it), at the
bandwidth probed just before. llama.cpp: `llama-bench -d` with -ctk and -ctv of the same format (f16 for i16: nearly
the same bytes), if it is built.
K and V of the context are whatever the cache holds: the time of a step does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time

import numpy as np

from pellucid import _native
from pellucid.front.loading import LoadOptions, begin, load
from pellucid.types import Batch

LLAMA_FORMATS = {"f32": "f32", "f16": "f16", "bf16": "bf16", "q8_0": "q8_0", "i16": "f16"}


def step_seconds(loaded, depth: int, runs: int) -> float:
    """The smallest time of one pass of one row at position depth - 1."""
    engine, size = loaded.engine, loaded.capacity.block_size
    blocks = -(-depth // size)
    table = np.zeros((1, -(-loaded.capacity.context_length // size)), np.int32)
    table[0, :blocks] = np.arange(blocks)
    position = np.array([depth - 1], np.int32)
    zero = np.zeros(1, np.int32)
    batch = Batch(np.array([1000], np.int32), position, position.copy(), zero, table, zero)
    best = np.inf
    for _ in range(runs + 2):  # two, in which the pass is recorded
        start = time.perf_counter()
        engine.model(batch, engine.cache)
        best = min(best, time.perf_counter() - start)
    return best


def slope(positions: list[int], seconds: list[float]) -> float:
    """Seconds for each position."""
    return float(np.polyfit(positions, seconds, 1)[0])


def floor_bytes(layers, kv_format: str, positions: list[int]) -> float:
    """Bytes of K and V that one position adds, on average over this range."""
    from pellucid.capacity import kv_bytes_per_token

    low, high = min(positions), max(positions)
    total = 0.0
    for layer in layers:
        seen = [min(n, layer.window or n) for n in (low, high)]
        total += kv_bytes_per_token([layer], kv_format) * (seen[1] - seen[0]) / (high - low)
    return total


def llama_slope(tool: str, model: str, positions: list[int], kv_format: str, threads: int) -> float:
    name = LLAMA_FORMATS[kv_format]
    depths = ",".join(str(n) for n in positions)
    options = f"-t {threads} -p 0 -n 16 -r 1 -d {depths} -ctk {name} -ctv {name} -fa 1 -o json".split()
    out = subprocess.run([tool, "-m", model, *options], capture_output=True, text=True, check=True).stdout
    rows = [row for row in json.loads(out) if row["n_gen"]]
    return slope([row["n_depth"] for row in rows], [1 / float(row["avg_ts"]) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--kv", default="i16,q8_0")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--positions", default="128,1024,2048,4096,8192")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--llama-bench", help="the tool's path; without it there is no peer")
    options = parser.parse_args()
    wanted = [int(n) for n in options.positions.split(",")]
    print("| model | threads | KV | ms at " + " | ms at ".join(map(str, wanted)) + " | slope, ms / 1,000 | floor |"
          " of the floor | llama.cpp's slope |")  # fmt: skip
    print("|---" * (len(wanted) + 7) + "|")
    for model in options.models:
        for threads in map(int, options.threads.split(",")):
            runner = _native.Runner(threads)
            bandwidth = max(runner.probe_read(1 << 28) for _ in range(5))
            del runner
            for kv in options.kv.split(","):
                loaded = load(begin(model, LoadOptions(num_threads=threads, kv_format=kv, max_sequences=1)))
                positions = [n for n in wanted if n <= loaded.capacity.context_length]
                for tensor in loaded.engine.cache.keys + loaded.engine.cache.values:
                    tensor[: -(-max(positions) // 32)] = 0  # the pages exist
                seconds = [step_seconds(loaded, n, options.runs) for n in positions]
                ours = slope(positions, seconds) * 1e6
                floor = floor_bytes(loaded.model.layers, kv, positions) / bandwidth * 1e6
                peer = "-"
                if options.llama_bench:
                    peer = f"{llama_slope(options.llama_bench, model, positions, kv, threads) * 1e6:.2f}"
                cells = [f"{s * 1e3:.2f}" for s in seconds] + ["-"] * (len(wanted) - len(seconds))
                print(f"| {model.split('/')[-1]} | {threads} | {kv} | " + " | ".join(cells)
                      + f" | {ours:.2f} | {floor:.2f} | {ours / floor:.2f} | {peer} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
