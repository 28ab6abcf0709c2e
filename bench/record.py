"""What recording a run costs: time of a decode step, bytes of a token, time of a replay. And how far logits move when
the same is computed in another way, which is what `glass/noise.py` calls a near-tie.

    python bench/record.py cost MODEL... [--sequences 1,8] [--tokens 96] [--rounds 9]
    python bench/record.py inside MODEL...
    python bench/record.py noise MODEL TEXT

cost: rounds of the same requests without and with a record, in turn, first one then the other way round; the median of
each, and of the differences of each round's pair, so that what else changes on the machine falls on both.
inside: where those differences drown in what else the machine does: the median time of each piece that a record adds to
a pass, measured in the midst of a generation (with cold caches), beside the lowest tenth of the plain passes.
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
from pellucid.front import recorder as recorder_module
from pellucid.front.recorder import RequestRecord
from pellucid.glass.digests import DigestWatch
from pellucid.glass.run_writer import RunWriter

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


def inside(path: str) -> None:
    """One sequence, 150 tokens, four times without and with a record."""
    times: dict[str, list[float]] = {}

    def timed(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def measured(*args: Any, **more: Any) -> Any:
            begun = perf_counter()
            try:
                return plain(*args, **more)
            finally:
                times.setdefault(name, []).append(perf_counter() - begun)

        setattr(owner, name, measured)

    with LLM(path) as llm, tempfile.TemporaryDirectory() as folder:
        engine = llm._need().engine
        for layers in (False, True):
            forwards: dict[bool, list[float]] = {False: [], True: []}
            for turn in range(8):
                times.clear()
                watched, forward, recorder = bool(turn % 2), engine._forward, None
                timed(engine, "_forward")
                if watched:
                    recorder = Recorder(Path(folder) / "run", layers=layers)
                    recorder.attach(llm)
                llm.generate(PROMPT, max_tokens=150, ignore_eos=True, record=recorder)
                forwards[watched] += times["_forward"][1:]
                engine._forward = forward  # type: ignore[method-assign]
                if recorder is not None:
                    recorder.close()
            low = {each: sorted(found)[len(found) // 10] for each, found in forwards.items()}
            pieces = {}
            for owner, name in (
                (RequestRecord, "token"),
                (DigestWatch, "take"),
                (recorder_module, "packed"),
                (RunWriter, "packed_steps"),
            ):
                kept = getattr(owner, name)
                times.clear()
                timed(owner, name)
                with Recorder(Path(folder) / "run", layers=layers) as recorder:
                    llm.generate(PROMPT, max_tokens=400, ignore_eos=True, record=recorder)
                setattr(owner, name, kept)
                found = times[name]
                pieces[name] = statistics.median(found) * len(found) / 400
            # The writing of steps that waited falls on few calls of `token`, which its median leaves out.
            pieces["written"] = pieces.pop("packed_steps") + pieces.pop("packed")
            total = sum(pieces.values())
            told = ", ".join(f"{name} {1e6 * value:.1f}" for name, value in pieces.items())
            print(
                f"{Path(path).stem}, {'layers' if layers else 'record'}: {told} = {1e6 * total:.1f} us a token = "
                f"{100 * total / low[False]:.2f}% of a pass of {1e3 * low[False]:.3f} ms "
                f"(watched {1e3 * low[True]:.3f})"
            )


def noise(path: str, text: str) -> None:
    logits = []
    for kv_format in ("f32", "i16"):
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
    insides = actions.add_parser("inside")
    insides.add_argument("models", nargs="+")
    noises = actions.add_parser("noise")
    noises.add_argument("model")
    noises.add_argument("text")
    given = parser.parse_args()
    if given.action == "noise":
        noise(given.model, given.text)
        return
    for model in given.models:
        if given.action == "inside":
            inside(model)
            continue
        for number in map(int, given.sequences.split(",")):
            cost(model, number, given.tokens, given.rounds)


if __name__ == "__main__":
    main()
