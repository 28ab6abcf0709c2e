"""A file of items through the scorer: results in the order of the input, continued where an earlier run ended."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _options
from pellucid.cli._batch_input import count_lines, open_lines
from pellucid.cli._batch_output import Pipe, ResultFile, encoded
from pellucid.cli._batch_progress import Progress
from pellucid.cli._score_input import ScoreLine, read_items
from pellucid.cli._score_options import as_given, delimited
from pellucid.errors import PellucidError
from pellucid.scoring.results import MEASURES

if TYPE_CHECKING:
    from pellucid.scoring.results import Scores

Tell = Callable[["Scores"], dict[str, Any]]


class Accuracy:
    """How often the best continuation was the gold one, by each measure; lines without gold do not count."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.right: Counter[str] = Counter()

    def add(self, result: Mapping[str, Any]) -> None:
        """result: an output line, of this run or of an earlier one."""
        if result.get("gold") is not None:
            for measure, best in result.get("best", {}).items():
                self.total[measure] += 1
                self.right[measure] += best == result["gold"]

    def __str__(self) -> str:
        parts = (f"{name} {self.right[name] / self.total[name]:.4f}" for name in MEASURES if self.total[name])
        return ", ".join(parts)


def best_of(scores: Scores) -> dict[str, int]:
    """By each measure that all of them have, the index of the best; of equals the first."""
    values = {name: [getattr(score, name) for score in scores] for name in MEASURES}
    return {name: row.index(max(row)) for name, row in values.items() if None not in row}


def run_file(source: str, output: str, *, overwrite: bool, tell: Tell, setting: Mapping[str, Any]) -> None:
    """tell: what of an item's scores its line says, "best" among it. setting: delimiter, boundary, unconditional,
    truncate, and whatever else decides a line. The model is loaded when the first line asks for it. Exit code 1: some
    lines have errors."""
    accuracy = Accuracy()
    with ExitStack() as stack:
        lines = open_lines(source, stack)
        sink = Pipe() if output == "-" else ResultFile(output, overwrite=overwrite, seen=accuracy.add)
        stack.callback(sink.close)
        run = _Run(sink, accuracy, tell, setting)
        run.run(read_items(lines, setting), count_lines(source))
        run.progress.finish(source, output)
        if accuracy.total:
            most = max(accuracy.total.values())
            _console.note(f"pellucid: accuracy over {most} lines with gold: {accuracy}")
        if run.progress.num_errors:
            click.get_current_context().exit(1)


class _Run:
    def __init__(
        self, sink: Pipe | ResultFile, accuracy: Accuracy, tell: Tell, setting: Mapping[str, Any]
    ) -> None:
        self.progress = Progress(sink)
        self._sink, self._accuracy, self._tell, self._setting = sink, accuracy, tell, setting
        self._due: deque[ScoreLine] = deque()  # read, and not yet written

    def run(self, lines: Iterator[ScoreLine], total: int | None) -> None:
        undone = self.progress.undone(lines)
        first = next(undone, None)
        if first is None:
            return
        from pellucid.scoring.many import score_items
        from pellucid.serving.progress_bar import prompts_bar

        def items() -> Iterator[tuple[Any, Any]]:
            for line in chain((first,), undone):
                self._due.append(line)
                if line.error is None:
                    yield line.context, delimited(line.continuations, self._setting["delimiter"])

        setting = self._setting
        with _options.open_llm() as llm, prompts_bar(total, None) as advance:
            results = score_items(
                llm, items(), setting["boundary"], setting["unconditional"], setting["truncate"]
            )
            for found in results:
                self._write_errors()
                line = self._due.popleft()
                if isinstance(found, PellucidError):
                    found = type(found)(f"line {line.index + 1}: {found}")
                    self._write(line, found)
                else:
                    self._write(line, as_given(found, line.continuations))
                advance(0)
            self._write_errors()

    def _write_errors(self) -> None:
        while self._due and (error := self._due[0].error) is not None:
            self._write(self._due.popleft(), error)

    def _write(self, line: ScoreLine, result: Scores | PellucidError) -> None:
        out = self.progress.result(line, result, self._tell)
        if "error" not in out:
            out |= {"gold": line.gold} if line.gold is not None else {}
            self._accuracy.add(out)
        self._sink.write(encoded(out))
