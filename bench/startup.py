"""What stands before the first token: interpreter, imports, vocabulary, model. Medians over processes.

python bench/startup.py [MODEL.gguf ...] [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import child

INTERPRETER = ("python -c ''", "")
IMPORTS = [
    ("import pellucid", "import pellucid"),
    ("import pellucid.cli.main", "import pellucid.cli.main"),
    ("import numpy", "import numpy"),
]


def per_model(path: Path) -> list[tuple[str, str]]:
    quoted = repr(str(path))
    return [
        (f"vocabulary of {path.name}", f"import pellucid; pellucid.load_tokenizer({quoted})"),
        (f"LLM of {path.name}", f"import pellucid; pellucid.LLM({quoted})"),
        (
            f"LLM of {path.name}, one token",
            f"import pellucid; pellucid.LLM({quoted}).generate('Once', max_tokens=1)",
        ),
    ]


def measure(programs: list[tuple[str, str]], repeats: int) -> dict[str, list[child.Cost]]:
    """All programs in turn, `repeats` times, after one round that is dropped."""
    costs: dict[str, list[child.Cost]] = {name: [] for name, _ in programs}
    for repeat in range(-1, repeats):
        for name, code in programs:
            cost = child.run([sys.executable, "-c", code])
            if repeat >= 0:
                costs[name].append(cost)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    programs = [INTERPRETER, *IMPORTS, *(entry for path in arguments.models for entry in per_model(path))]
    costs = measure(programs, arguments.repeats)
    bare = statistics.median(cost.wall for cost in costs[INTERPRETER[0]])
    print("| process | s | beyond the interpreter, s | peak MiB |\n| --- | --- | --- | --- |")
    for name, runs in costs.items():
        wall = statistics.median(cost.wall for cost in runs)
        peak = statistics.median(cost.peak_rss for cost in runs) / 2**20
        print(f"| {name} | {wall:.3f} | {wall - bare:.3f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
