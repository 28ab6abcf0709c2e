"""How fast does `pellucid step` react to a key, from the key to the drawn screen; how much of that is forward passes?

    python bench/step_ui.py MODEL.gguf ... [--size 80x24] [--tokens 200]

The app runs headless, as under Textual's pilot, on a text of some tokens, with a temperature, top-p and a penalty, so
that every stage is told. A key's time ends when the screen has been composed after the view that it led to. The layers
(a pass of their own, begun 0.15 s after the last key) are measured by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
from statistics import median
from time import perf_counter

from pellucid import LLM
from pellucid.cli._options import parse_value
from pellucid.tui import app as module
from pellucid.tui.app import StepApp
from pellucid.tui.debugger import Debugger

KEYS = (
    ("step", "s", 15),
    ("cursor left", "left", 40),
    ("cursor right", "right", 40),
    ("temperature", "plus", 8),
    ("other row", "down", 10),
    ("take back", "b", 8),
    ("choose a token", "2", 8),
    ("new branch", "n", 4),
    ("switch branch", "tab", 4),
)


class Timed(StepApp):
    """Knows when a view has been drawn."""

    def __init__(self, debugger: Debugger) -> None:
        super().__init__(debugger)
        self.drawn = asyncio.Event()

    def _refresh(self) -> None:
        super()._refresh()
        self.call_after_refresh(self.drawn.set)


class Passes:
    """Seconds in forward passes."""

    def __init__(self, llm: LLM) -> None:
        self.seconds = 0.0
        engine = llm._open_driver()._engine
        step = engine.step

        def timed():
            start = perf_counter()
            try:
                return step()
            finally:
                self.seconds += perf_counter() - start

        engine.step = timed


async def measure(llm: LLM, size: tuple[int, int], tokens: int) -> list[tuple[str, list[float], list[float]]]:
    from textual.events import Key

    generation = llm.begin(
        "Once upon a time", temperature=0.8, top_p=0.95, repetition_penalty=1.1, seed=1, ignore_eos=True
    )
    generation.run(tokens)
    app = Timed(Debugger(llm, generation, parse_value))
    passes = Passes(llm)
    found = []
    async with app.run_test(size=size) as pilot:
        await app._jobs.join()
        await pilot.pause()
        await asyncio.sleep(1)  # the first layers
        for name, key, count in KEYS:
            total, computing = [], []
            for _ in range(count):
                app.drawn.clear()
                before, start = passes.seconds, perf_counter()
                app.post_message(Key(key, key if len(key) == 1 else None))
                await app.drawn.wait()
                total.append(perf_counter() - start)
                computing.append(passes.seconds - before)
                await app._jobs.join()
                await pilot.pause()
            found.append((name, total, computing))
        view = app.view
        start = perf_counter()
        await asyncio.to_thread(module.make_layers, llm, list(view.ids), view.look.token)
        found.append(("layers", [perf_counter() - start], [0.0]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--size", default="80x24", help="columns x lines")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    for model in arguments.models:
        with LLM(model, num_threads=arguments.threads) as llm:
            print(f"{llm.info.name}, {arguments.size}, {arguments.tokens} tokens, {llm!r}\n")
            print("| key | ms, median | of these forward passes | without them, median | worst |")
            print("|---|---|---|---|---|")
            for name, total, computing in asyncio.run(measure(llm, (width, height), arguments.tokens)):
                rest = [a - b for a, b in zip(total, computing, strict=True)]
                cells = (median(total), median(computing), median(rest), max(rest))
                print(f"| {name} | " + " | ".join(f"{1000 * each:.1f}" for each in cells) + " |")
            print()


if __name__ == "__main__":
    main()
