"""`LLM.report`: a generation as a page of HTML."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pellucid.errors import UsageError
from pellucid.paths import as_path, check_replaceable
from pellucid.prompts import check_count, check_flag

if TYPE_CHECKING:
    from pellucid.llm import LLM


class Page(str):
    """HTML. Its repr is short: a prompt or a notebook that echoes the value of `llm.report(...)` stays readable."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Page: HTML of {len(self):,} characters; print() or .encode() has them>"


class Reporting:
    """The part of `LLM` that shows."""

    def report(
        self,
        source: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        top: int = 8,
        lens: bool = True,
        prompt_tokens: int = 256,
    ) -> Page:
        """A page of HTML on a run: the text coloured by probability; for each token its alternatives, what the stages
        of the choice did, what each layer would have said; entropy, surprise, margins; branches, timings, settings.
        It needs no network and no other file.

        source: a Generation (with all branches of its tree), a GenerationResult, a Run or a run file's path. path:
        the page is written there, too. top: alternatives told of each token. lens: the layers. prompt_tokens: of how
        many tokens at the end of a prompt the probabilities are told. What the source does not hold is computed again,
        with the same bits. Errors: UsageError, RunFileError (another model, damaged), OSError.
        """
        from pellucid.report.gather import Wanted
        from pellucid.report.page import render

        check_flag("lens", lens)
        wanted = Wanted(check_count("top", top, 1), lens, check_count("prompt_tokens", prompt_tokens, 0))
        target = None if path is None else as_path("report", path)
        if target is not None:
            check_target(target)
        page = Page(render(self._report(source, wanted)))
        if target is not None:
            write_page(target, page)
        return page

    def _report(self, source: Any, wanted: Any) -> Any:
        from pellucid.glass.rows import check_model
        from pellucid.glass.run import Run
        from pellucid.glass.runfile import read_run
        from pellucid.held.generation import Generation
        from pellucid.outputs import GenerationResult
        from pellucid.report.gather import of_generation, of_result, of_run

        llm = cast("LLM", self)
        llm._need()
        if isinstance(source, Generation):
            if source._llm is not llm:
                raise UsageError("report: this generation is of another LLM; ask that one")
            return of_generation(source, llm, wanted)
        if isinstance(source, GenerationResult):
            return of_result(source, llm, wanted)
        if not isinstance(source, Run | str | os.PathLike):
            raise UsageError(
                f"report: expected a Generation, GenerationResult, Run or its path, got {type(source).__name__}"
            )
        run = source if isinstance(source, Run) else read_run(source)
        check_model(run, llm)
        return of_run(run, llm, wanted)


def write_page(path: Path, page: str) -> None:
    """As a whole or not at all. OSError, which names the path."""
    check_target(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            draft.write_text(page, encoding="utf-8")
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # not the draft's name


def check_target(path: Path) -> None:
    """OSError: a page cannot be written there, as far as that shows before there is one."""
    check_replaceable(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "its folder is not there", str(path))
