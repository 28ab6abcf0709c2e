"""`pellucid batch`: a file of requests, a line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _options
from pellucid.cli._batch_input import Line, count_lines, open_lines, read_lines
from pellucid.cli._batch_output import Pipe, ResultFile, encoded, told
from pellucid.cli._batch_progress import Progress
from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from pellucid.serving.many import Job


@click.command(
    cls=_options.SamplingCommand,
    epilog="""\b
Examples:
  pellucid batch in.jsonl -o out.jsonl --max-tokens 100
  pellucid batch in.jsonl -o out.jsonl --output-order input --temperature 0.7 --seed 1
  jq -c '{id: .name, prompt: .text}' data.json | pellucid batch - > out.jsonl

Each input line is a JSON object: "prompt" (text or token ids) or "messages" (a chat), and any of "id",
"parse_special", "cache_salt", "template_variables" and the sampling parameters, which win over the options.
Each output line has "index" (of the input line, from 0), "id", and "outputs" or "error".

A run that was stopped, even by a kill or a crash, is continued by the same command: lines that are done are
not run again, and none is lost. Exit code 1: some lines have errors.
""",
)
@click.argument("source", metavar="INPUT", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), default="-", help="Default: stdout."
)
@_options.load_options
@click.option(
    "--output-order",
    type=click.Choice(["completion", "input"]),
    default="completion",
    show_default=True,
    help="input: results wait in memory for those before them.",
)
@click.option("--overwrite", is_flag=True, help="Drop the results that the output file has, and begin anew.")
@_options.model_defaults
def command(source: str, output: str, output_order: str, overwrite: bool, **options: Any) -> None:
    """Run a file of requests, one JSON object a line.

    INPUT is a file, or "-" for stdin. OUTPUT gets one JSON object for each line of INPUT.
    """
    sampling = _options.sampling_values()
    common = {**sampling, "model_defaults": options["model_defaults"]}
    with ExitStack() as stack:
        lines = open_lines(source, stack)
        total = count_lines(source)
        sink = Pipe() if output == "-" else ResultFile(output, overwrite=overwrite)
        stack.callback(sink.close)
        batch = Batch(sink, in_order=output_order == "input")
        requests = (_own(line) for line in read_lines(lines, common, options["model"]))
        batch.run(requests, options["model_defaults"], total)
        batch.progress.finish(source, output)
        if batch.progress.num_errors:
            click.get_current_context().exit(1)


def _own(line: Line) -> Line:
    """model_defaults is part of a line's key, and no field of a request."""
    line.fields.pop("model_defaults", None)
    return line


class Batch:
    """Runs the lines of an input that the output has no results of."""

    def __init__(self, sink: Pipe | ResultFile, *, in_order: bool) -> None:
        self.progress = Progress(sink)
        self._sink = sink
        self._in_order = in_order
        self._due: list[int] = []  # indexes that are run and not yet written, ascending
        self._held: dict[int, bytes] = {}  # results that wait for those before them

    def run(self, lines: Iterator[Line], model_defaults: bool, total: int | None) -> None:
        """The model is loaded when the first line asks for it."""
        undone = self.progress.undone(lines)
        first = next(undone, None)
        if first is None:
            return
        from pellucid.serving.many import run_jobs
        from pellucid.serving.progress_bar import prompts_bar

        def jobs() -> Iterator[Job[Line]]:
            yield from self._jobs(first)
            for line in undone:
                yield from self._jobs(line)

        with _options.open_llm() as llm, prompts_bar(total, None) as advance:
            sort = not self._in_order
            with closing(run_jobs(llm, jobs(), model_defaults=model_defaults, sort=sort)) as results:
                for line, result in results:
                    self._finish(line, result)
                    advance(0 if isinstance(result, PellucidError) else result.counts.generated)

    def _jobs(self, line: Line) -> Iterator[Job[Line]]:
        """The job of a line; none if the line itself is wrong, which is its result."""
        from pellucid.serving.many import Job

        self._due.append(line.index)
        if line.error is not None:
            self._finish(line, line.error)
        else:
            yield Job(line, line.prompt, line.fields)

    def _finish(self, line: Line, result: Any) -> None:
        data = encoded(self.progress.result(line, result, told))
        if not self._in_order:
            self._sink.write(data)
            return
        self._held[line.index] = data
        while self._due and self._due[0] in self._held:
            self._sink.write(self._held.pop(self._due.pop(0)))
