"""What of an input is done and what is not, for commands whose output file is continued by the next run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pellucid.cli import _console
from pellucid.errors import PellucidError, UsageError

if TYPE_CHECKING:
    from pellucid.cli._batch_output import Pipe, ResultFile


class Keyed(Protocol):
    """A line of the input. index: from 0. key: of the line and of what it is run with. identity: its "id"."""

    @property
    def index(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def identity(self) -> str | int | None: ...


L = TypeVar("L", bound=Keyed)
R = TypeVar("R")


class Progress:
    """num_run: lines run now. num_errors: lines with errors, now or before."""

    def __init__(self, sink: Pipe | ResultFile) -> None:
        self.num_run = 0
        self.num_errors = sink.num_errors
        self._done = sink.done
        self._seen: set[int] = set()

    def undone(self, lines: Iterable[L]) -> Iterator[L]:
        """Those that the output has no result of. UsageError: it has one that was made otherwise."""
        for line in lines:
            self._seen.add(line.index)
            known = self._done.get(line.index)
            if known is None:
                yield line
            elif known != line.key:
                raise UsageError(
                    f"line {line.index + 1} of the input, the model or the options are not those of the results "
                    "that the output has; name another file, or give --overwrite"
                )

    def result(
        self, line: Keyed, result: R | PellucidError, tell: Callable[[R], dict[str, Any]]
    ) -> dict[str, Any]:
        """The line of the output, which is counted. tell: what it says of a result that is no error."""
        self.num_run += 1
        out: dict[str, Any] = {"index": line.index, "id": line.identity, "key": line.key}
        if isinstance(result, PellucidError):
            self.num_errors += 1
            return out | {"error": {"type": type(result).__name__, "message": str(result)}}
        return out | tell(result)

    def finish(self, source: str, output: str) -> None:
        """Says on stderr what was done. UsageError: the output has results of lines that the input does not have."""
        if self._done.keys() - self._seen:
            raise UsageError(f"{output} has results of lines that {source} does not have; name another file")
        told = f"{self.num_run} lines run, {len(self._done)} done before, {self.num_errors} with errors"
        _console.note(f"pellucid: {'all done before: ' if self._done and not self.num_run else ''}{told}")
