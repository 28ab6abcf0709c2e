"""What recording a run costs: time of a decode step, bytes of a token, time of a replay. And how far logits move when
the same is computed in another way, which is what `glass/noise.py` calls a near-tie.

    python bench/record.py cost MODEL... [--sequences 1,8] [--tokens 96] [--rounds 9]
    python bench/record.py noise MODEL TEXT

cost: rounds of the same requests without and with a record, in turn, first one then the other way round; the median of
each, and of the differences of each round's pair, so that what else changes on the machine falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from pellucid import LLM, Recorder, read_run

PROMPT = "The best way to learn a new skill is"


def generate(llm: LLM, number: int, tokens: int, record: Any) -> float:
    """Seconds a pass, after the first token of all."""
    prompts = [PROMPT + " " * (i + 1) for i in range(number)]
    begun = perf_counter()
    results = llm.generate(prompts, max_tokens=tokens, ignore_eos=True, record=record, progress=False)
    total = perf_counter() - begun
    first = max(result.timings.time_to_first_token or 0 for result in results)
    return (total - first) / (tokens - 1)


def cost(path: str, number: int, tokens: int, rounds: int) -> None:
    ways: list[tuple[str, bool | None]] = [("plain", None), ("record", False), ("and layers", True)]
    times: dict[str, list[float]] = {name: [] for name, _ in ways}
    size: dict[str, float] = {}
    with LLM(path) as llm, tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for name, layers in ways if turn % 2 else ways[::-1]:
                file = Path(folder) / name
                recorder = None if layers is None else Recorder(file, layers=layers)
                if recorder is not None:
                    recorder.attach(llm)  # the fingerprint and the header, once a file
                seconds = generate(llm, number, tokens, recorder)
                if turn:  # the first warms up
                    times[name].append(seconds)
                if recorder is not None:
                    recorder.close()
                    size[name] = file.stat().st_size / (number * tokens)
        begun = perf_counter()
        done = llm.replay(Path(folder) / "and layers")
        replayed = perf_counter() - begun
        assert done.equal, done.lines()
        header = len(read_run(Path(folder) / "record").branches)
    plain = statistics.median(times["plain"])
    print(f"{Path(path).stem}, {number} sequences of {tokens} tokens: plain {1e3 * plain:.3f} ms a pass")
    for name, _ in ways[1:]:
        extra = statistics.median(a - b for a, b in zip(times[name], times["plain"], strict=True))
        print(
            f"  {name}: {1e6 * extra:+.0f} us a pass = {100 * extra / plain:+.2f}%; {size[name]:.1f} bytes a token"
            f" (with the header and {header} branches)"
        )
    quicker = plain * tokens / replayed
    print(f"  replay by rows: {replayed:.2f} s for {number * tokens} tokens, {quicker:.1f} times as quick")


def noise(path: str, text: str) -> None:
    logits = []
    for kv_format in ("f32", "f16"):
        with LLM(path, kv_format=kv_format, context_length=1024) as llm:
            ids = llm.tokenizer.encode(Path(text).read_text(encoding="utf-8")[2000:8000])[:512]
            logits.append(llm.logits(ids))
    a, b = logits
    rows = np.arange(len(a))
    first = a.argmax(1)
    others = a.copy()
    others[rows, first] = -np.inf
    second = others.argmax(1)
    margin = a[rows, first] - a[rows, second]
    moved = np.abs(margin - (b[rows, first] - b[rows, second]))
    flips = first != b.argmax(1)
    highest = margin[flips].max() if flips.any() else 0.0
    print(
        f"{Path(path).stem}: the margin of the two largest logits moves by {np.median(moved):.3f} (median), "
        f"{np.percentile(moved, 99):.3f} (99%), {moved.max():.3f} (most); {flips.sum()} of {len(a)} argmaxes "
        f"flip, at margins up to {highest:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    costs = actions.add_parser("cost")
    costs.add_argument("models", nargs="+")
    costs.add_argument("--sequences", default="1,8")
    costs.add_argument("--tokens", type=int, default=96)
    costs.add_argument("--rounds", type=int, default=9)
    noises = actions.add_parser("noise")
    noises.add_argument("model")
    noises.add_argument("text")
    given = parser.parse_args()
    if given.action == "noise":
        noise(given.model, given.text)
        return
    for model in given.models:
        for number in map(int, given.sequences.split(",")):
            cost(model, number, given.tokens, given.rounds)


if __name__ == "__main__":
    main()
