"""How far a list of prompts is, as a bar on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def prompts_bar(total: int | None, wanted: bool | None) -> Iterator[Callable[[int], None]]:
    """Gives a function to be called with the number of generated tokens each time a prompt is done.

    total: prompts; None: not known. wanted: None: only where stderr is a terminal.
    """
    if wanted is None:
        wanted = sys.stderr is not None and sys.stderr.isatty()
    if not wanted:
        yield lambda tokens: None
        return
    from rich import progress as parts
    from rich.console import Console

    bar = parts.Progress(
        parts.MofNCompleteColumn(),
        parts.TextColumn("prompts"),
        parts.BarColumn(bar_width=None),
        parts.TextColumn("{task.fields[tokens]} tokens"),
        parts.TimeElapsedColumn(),
        parts.TimeRemainingColumn(),
        console=Console(stderr=True),
        expand=True,
    )
    generated = 0
    with bar:
        task = bar.add_task("", total=total, tokens=0)

        def advance(tokens: int) -> None:
            nonlocal generated
            generated += tokens
            bar.update(task, advance=1, tokens=generated)

        yield advance
