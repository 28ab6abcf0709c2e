"""The part of the front door that looks back at what was generated: why a token, a run replayed, a run with other
settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from pellucid.errors import UsageError
from pellucid.sampling.values import as_int

if TYPE_CHECKING:
    from pellucid.glass.record import Record
    from pellucid.glass.replay import Replay
    from pellucid.glass.run import Run, RunBranch
    from pellucid.glass.what_if import WhatIf
    from pellucid.glass.why import Why
    from pellucid.llm import LLM
    from pellucid.outputs import GenerationResult
    from pellucid.sampling.params import SamplingParams

    Source = GenerationResult | Run | RunBranch | str | os.PathLike[str]


class Hindsight:
    """Inherited by `LLM`, and by nothing else."""

    def why(self, source: Source, step: int = 0, *, sample: int = 0) -> Why:
        """Why a token was chosen: `print(llm.why(result, 3))`. Its logits are computed again, with the bits they had.

        source: a GenerationResult, a Run, or the path of a run file. step: which token of the output, from 0; negative:
        from the end. sample: which output of the result, or branch of the run. Errors: UsageError, RunFileError.
        """
        from pellucid.glass.why import Why

        branch = self._branch(source, sample)
        at = as_int(step)
        if at is None or not -len(branch.tokens) <= at < len(branch.tokens):
            raise UsageError(f"step: expected 0 to {len(branch.tokens) - 1}, got {step!r:.40}")
        at %= len(branch.tokens)
        return Why(self.records(branch, at, at + 1)[0])

    def records(
        self, source: Source, start: int = 0, stop: int | None = None, *, sample: int = 0
    ) -> list[Record]:
        """The records of the tokens [start, stop) of an output; each keeps its logits (4 bytes a token of the
        vocabulary). Arguments and errors: those of `why`."""
        from pellucid.glass.choices import records

        branch = self._branch(source, sample)
        last = len(branch.tokens) if stop is None else stop
        if not 0 <= start <= last <= len(branch.tokens):
            raise UsageError(
                f"records: expected 0 <= start <= stop <= {len(branch.tokens)}, got {start} and {stop}"
            )
        return records(cast("LLM", self), branch, start, last)

    def replay(self, run: Run | str | os.PathLike[str], *, way: str = "rows") -> Replay:
        """Make a run again and compare: `replay.equal`, or the first step that differs.

        way: "rows": every position again in long passes, every choice again from its row; "generate": the requests
        again, all together. Errors: RunFileError (damaged, of another model), UsageError.
        """
        from pellucid.glass.replay import replay

        return replay(cast("LLM", self), _run(run), way)

    def what_if(
        self, run: Run | str | os.PathLike[str], params: SamplingParams | None = None, **overrides: Any
    ) -> WhatIf:
        """Where other parameters (`params`, or the run's with these fields replaced) would first have changed the text.
        Nothing is generated. A token forced (`force_at`) at a step that the run does not have is an error, at one that
        only some branches have a line in `notes`. Errors: RunFileError, UsageError, ConstraintError."""
        from pellucid.glass.what_if import what_if

        return what_if(cast("LLM", self), _run(run), params, **overrides)

    def _branch(self, source: Any, sample: int) -> RunBranch:
        from pellucid.glass.from_result import branch_of_result, check_result
        from pellucid.glass.rows import check_model
        from pellucid.glass.run import RunBranch
        from pellucid.outputs import GenerationResult

        if isinstance(source, RunBranch):
            return source
        if isinstance(source, GenerationResult):
            check_result(source, cast("LLM", self).settings)
            branch = branch_of_result(source, sample)
            branch.companion_ids = self._companion_of(branch)
            return branch
        run = _run(source)
        check_model(run, cast("LLM", self))
        return run.branch(sample)

    def _companion_of(self, branch: RunBranch) -> list[int] | None:
        """The prompt of guidance's second sequence, which a result does not hold as ids."""
        params, llm = branch.params, cast("LLM", self)
        ways = [llm._companion(branch.prompt_ids, params, special) for special in (False, True)]
        if ways[0] != ways[1]:
            raise UsageError(
                "negative_prompt: a result does not tell whether its control tokens were text; record the run"
            )
        return ways[0]


def _run(source: Any) -> Run:
    from pellucid.glass.run import Run
    from pellucid.glass.runfile import read_run

    return source if isinstance(source, Run) else read_run(source)
