"""What looking costs: the residual stream of all layers for every generated token, and the logit lens of a generation.

    python bench/capture.py MODEL.gguf [--threads N] [--rounds N] [--peer PYTHON CHECKPOINT KIND]...

Decoding with and without `Capture()` alternates, token by token over whole generations; the medians and the least times
are compared, for 1 and 8 sequences. --peer: the same in another environment, by capture_peer.py: KIND is transformers,
transformer_lens or nnsight, CHECKPOINT a Hub folder with the same weights in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe
from pellucid import LLM, Capture

TOKENS, PROMPT, LENS_TOKENS = 128, 16, 256


def prompts(count: int, turn: int) -> list[list[int]]:
    """Never the same twice: nothing is found in the prefix cache."""
    return [[7 + (turn * 31 + i * 7 + j * 3) % 4000 for j in range(PROMPT)] for i in range(count)]


def decode_seconds(llm: LLM, count: int, turn: int, capture: Capture | None) -> float:
    """Of one whole generation of all sequences, from prompt to result."""
    start = time.perf_counter()
    results = llm.generate(
        prompts(count, turn), max_tokens=TOKENS, ignore_eos=True, capture=capture, progress=False
    )
    seconds = time.perf_counter() - start
    assert all(len(result.token_ids) == TOKENS for result in results)
    return seconds


def overhead(llm: LLM, count: int, rounds: int) -> dict[str, float]:
    capture = Capture(positions="generated")
    plain, captured = [], []
    for turn in range(rounds + 1):
        pair = [(plain, None), (captured, capture)]
        for times, what in pair if turn % 2 else pair[::-1]:
            times.append(decode_seconds(llm, count, 2 * turn + (what is None), what))
    plain, captured = plain[1:], captured[1:]  # the first of each records the programs
    return {
        "plain_ms": 1e3 * min(plain) / TOKENS,
        "captured_ms": 1e3 * min(captured) / TOKENS,
        "ratio_least": min(captured) / min(plain),
        "ratio_median": statistics.median(captured) / statistics.median(plain),
    }


def lens_seconds(llm: LLM) -> tuple[float, float]:
    """(of a generation of 256 tokens, of the lens of all layers at each of them)."""
    prompt = prompts(1, 999)[0]
    result = llm.generate(prompt, max_tokens=LENS_TOKENS, ignore_eos=True)
    ids = [*prompt, *result.token_ids]
    start = time.perf_counter()
    llm.generate(prompt, max_tokens=LENS_TOKENS, ignore_eos=True)
    generated = time.perf_counter() - start
    start = time.perf_counter()
    llm.lens(ids[:-1], positions=range(len(prompt) - 1, len(ids) - 1), k=5)
    return generated, time.perf_counter() - start


def peer_figures(python: str, checkpoint: str, kind: str, threads: int) -> dict[str, float]:
    script = Path(__file__).with_name("capture_peer.py")
    command = [python, str(script), kind, checkpoint, str(threads), str(TOKENS), str(LENS_TOKENS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode != 0:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed"}  # type: ignore[dict-item]
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sequences", default="1,8")
    parser.add_argument("--no-lens", action="store_true")
    parser.add_argument(
        "--peer", nargs=3, action="append", default=[], metavar=("PYTHON", "CHECKPOINT", "KIND")
    )
    given = parser.parse_args()
    print(json.dumps(describe()), file=sys.stderr)
    with LLM(given.model, num_threads=given.threads) as llm:
        size = Capture().position_bytes(llm.model)
        print(
            f"{Path(given.model).stem}: the stream after {len(llm.model.layers)} layers, {size / 1024:.0f} KiB a token"
        )
        print("\n| sequences | decode ms | with capture | least times | medians |\n|---|---|---|---|---|")
        for count in map(int, given.sequences.split(",")):
            found = overhead(llm, count, given.rounds)
            print(
                f"| {count} | {found['plain_ms']:.3f} | {found['captured_ms']:.3f} "
                f"| {100 * found['ratio_least'] - 100:+.1f}% | {100 * found['ratio_median'] - 100:+.1f}% |",
                flush=True,
            )
        if not given.no_lens:
            generated, lens = lens_seconds(llm)
            print(
                f"\nlens of {LENS_TOKENS} tokens, all layers: {lens:.2f} s (generating them: {generated:.2f} s)"
            )
        threads = llm.settings["num_threads"].value
    for python, checkpoint, kind in given.peer:
        print(f"{kind}: {json.dumps(peer_figures(python, checkpoint, kind, threads))}", flush=True)


if __name__ == "__main__":
    main()
