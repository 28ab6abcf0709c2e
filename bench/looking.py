"""What looking adds to a pass outside the native program, where whole runs differ more by what else the machine does.

    python bench/looking.py MODEL [--sequences 1,8] [--tokens 100] [--rounds 4] [--ways plain,record,layers,capture]

Of each pass of a generation: its time less that of the recorded program and of the settling of its choice, so what
Python does: plan, batch, watching, choice, text, record. The ways alternate; the mean leaves out the highest and the
lowest twentieth. A record's writing falls on one pass of 64 tokens: `bench/record.py inside` tells it apart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from pellucid import LLM, Capture, Recorder
from pellucid.serving.driver import Driver


class Timed:
    """The runner; its seconds in programs and choices are added up."""

    def __init__(self, runner: Any) -> None:
        self._runner, self.seconds = runner, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def run(self, *given: Any) -> Any:
        return self._add(self._runner.run, given)

    def settle(self, *given: Any) -> Any:
        return self._add(self._runner.settle, given)

    def _add(self, function: Any, given: tuple[Any, ...]) -> Any:
        begun = perf_counter()
        found = function(*given)
        self.seconds += perf_counter() - begun
        return found


def options(way: str, folder: Path) -> dict[str, Any]:
    if way == "capture":
        return {"capture": Capture(positions="generated")}
    if way == "plain":
        return {}
    return {"record": Recorder(folder / way, layers=way == "layers")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--sequences", default="1,8")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--ways", default="plain,record,layers,capture")
    given = parser.parse_args()
    ways = given.ways.split(",")
    passes: list[tuple[float, float]] = []  # seconds: around the program, and in it
    with LLM(given.model) as llm, tempfile.TemporaryDirectory() as folder:
        loaded = llm._need()
        timed = loaded.ops.runner = Timed(loaded.ops.runner)  # type: ignore[union-attr]
        whole = Driver._pass

        def one_pass(driver: Driver) -> None:
            begun, inside = perf_counter(), timed.seconds
            whole(driver)
            inside = timed.seconds - inside
            if inside:  # no prompts, and nothing that was not replayed
                passes.append((perf_counter() - begun - inside, inside))

        Driver._pass = one_pass  # type: ignore[method-assign]
        for count in map(int, given.sequences.split(",")):
            found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for turn in range(given.rounds + 1):
                for at, way in list(enumerate(ways))[:: 1 if turn % 2 else -1]:
                    prompts = [
                        [7 + (turn * 131 + i * 7 + j * 3 + at * 17) % 4000 for j in range(16)]
                        for i in range(count)
                    ]
                    passes.clear()
                    more = options(way, Path(folder))
                    llm.generate(prompts, max_tokens=given.tokens, ignore_eos=True, progress=False, **more)
                    found[way] += passes if turn else []  # the first records the programs
            native = statistics.median(inside for _, inside in found["plain"])
            base = 0.0
            for way in ways:
                around = sorted(seconds for seconds, _ in found[way])
                cut = len(around) // 20
                median, mean = statistics.median(around), statistics.fmean(around[cut : len(around) - cut])
                base = base or median
                more_us, pass_ms = 1e6 * (median - base), 1e3 * (native + base)
                print(
                    f"{Path(given.model).stem}, {count} sequences, {way}: {1e6 * median:.1f} us around the program "
                    f"(mean {1e6 * mean:.1f}), {more_us:+.1f} us = {more_us / 10 / pass_ms:+.2f}% of {pass_ms:.2f} ms",
                    flush=True,
                )


if __name__ == "__main__":
    main()
