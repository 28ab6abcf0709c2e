"""A report's data from a run: everything that is not in the file is computed again, with the bits that the run had.

A run file that was read, a result and a generation in memory are all branches of tokens, and go the same way. No HTML
is known here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pellucid.glass.apply import at_positions
from pellucid.glass.choices import SAMPLED, each_record
from pellucid.glass.from_result import branch_of_result, check_result
from pellucid.glass.intervention_file import interventions_from_data, interventions_to_data
from pellucid.glass.rows import numbers_differ, segments, walk
from pellucid.glass.run import DRAWN, GIVEN, Run, RunBranch, RunToken
from pellucid.glass.why import Why
from pellucid.report.generation_run import branches_of
from pellucid.report.lens_view import lens_of
from pellucid.report.page_data import PROMPT, BranchView, Report, TokenView
from pellucid.report.token_view import TokenReader, readable
from pellucid.report.told import (
    branch_names,
    ended,
    facts_of_branches,
    facts_of_run,
    settings_of,
    shared,
    timings_of,
    title_of,
)

if TYPE_CHECKING:
    from pellucid.glass.intervene import Intervention
    from pellucid.glass.record import Record
    from pellucid.held.generation import Generation
    from pellucid.llm import LLM
    from pellucid.outputs import GenerationResult
    from pellucid.settings import Settings
    from pellucid.types import Float32

_OF_EVERY_TOKEN = ("improbable", "forced", "altered", "from_draft")  # flags; the others are of a choice
PRESENT = (
    "Choices are explained with the parameters that each branch has now; a run file (record=) keeps those that it had "
    "at each of them."
)
TOLD_AT_A_TIME = 256  # tokens of which one line of progress tells


@dataclass(frozen=True)
class Wanted:
    """top: the most probable tokens told of each position. lens: also what each layer would say. prompt_tokens: of how
    many tokens at the end of a prompt the probabilities are told. progress: called with a line for each part of the
    work."""

    top: int = 8
    lens: bool = True
    prompt_tokens: int = 256
    progress: Callable[[str], None] | None = None


def of_run(run: Run, llm: LLM, wanted: Wanted) -> Report:
    """Of a run file, with the model that it is a run of. Errors: RunFileError, those of `LLM.logits`."""
    gatherer = Gatherer(llm, run.branches, branch_names(run.branches), wanted)
    report = gatherer.report(os.path.basename(run.path), run.load)
    notes = list(report.notes)
    if run.num_cut_bytes:
        notes.append(
            f"The run file is cut: {run.num_cut_bytes} bytes after its last whole step were left out."
        )
    if not run.branches:
        notes.append("The run file holds no generation yet.")
    differing = numbers_differ(run, llm)
    if differing:
        notes.append(
            f"Computed again under other conditions ({'; '.join(differing)}): numbers may be others."
        )
    return replace(report, facts=facts_of_run(run, llm), notes=tuple(notes))


def of_result(result: GenerationResult, llm: LLM, wanted: Wanted) -> Report:
    """Of all samples of a result. Errors: UsageError, those of `LLM.logits`."""
    check_result(result, llm.settings)
    branches = [branch_of_result(result, index) for index in range(len(result.outputs))]
    for branch in branches[1:]:
        branch.parent, branch.forked_at = 0, len(branch.prompt_ids)
    return Gatherer(llm, branches, branch_names(branches), wanted).report("a generation", llm.settings)


def of_generation(generation: Generation, llm: LLM, wanted: Wanted) -> Report:
    """Of a generation and of all branches of its tree that somebody holds. Errors: those of `LLM.logits`."""
    branches, labels = branches_of(generation)
    names = [label or name for label, name in zip(labels, branch_names(branches), strict=True)]
    report = Gatherer(llm, branches, names, wanted).report("a generation", llm.settings)
    return replace(report, notes=(PRESENT, *report.notes))


class Gatherer:
    """Makes the views of a run's branches. notes: what a reader must know of them; grows with the work."""

    def __init__(self, llm: LLM, branches: Sequence[RunBranch], names: Sequence[str], wanted: Wanted) -> None:
        self._llm = llm
        self._branches = branches
        self._names = names
        self._wanted = wanted
        self._reader = TokenReader(llm.tokenizer, wanted.top)
        self.layer_names: tuple[str, ...] = ()
        self.notes: list[str] = []

    def report(self, otherwise: str, load: Settings) -> Report:
        """otherwise: its title where no prompt was text. load: the settings of the model."""
        views = tuple(map(self._branch, self._branches, self._names))
        return Report(
            title=title_of(self._branches, self._llm.tokenizer, otherwise),
            branches=views,
            facts=tuple(facts_of_branches(self._branches, self._llm)),
            settings=settings_of(load, self._branches),
            timings=timings_of(self._branches),
            layer_names=self.layer_names,
            notes=tuple(self.notes),
        )

    def _progress(self, line: str) -> None:
        if self._wanted.progress is not None:
            self._wanted.progress(line)

    def _branch(self, branch: RunBranch, name: str) -> BranchView:
        num_prompt = len(branch.prompt_ids)
        start = shared(self._branches, branch)
        prompt = [] if start >= num_prompt else self._prompt(branch, name)[start:]
        output = self._output(branch, name, max(0, start - num_prompt))
        if self._wanted.lens:
            prompt, output = self._with_lens(branch, name, prompt, output)
        return BranchView(
            name=name,
            tokens=tuple(readable(prompt + output, self._llm.tokenizer)),
            parent=branch.parent,
            forked_at=start,
            sibling=branch.parent is not None and start == num_prompt,
            ended=ended(branch),
        )

    # --- the prompt -----------------------------------------------------------------------------------
    def _prompt(self, branch: RunBranch, name: str) -> list[TokenView]:
        """All its tokens; the last ones, as many as were asked for, with their distributions."""
        ids = branch.prompt_ids
        first = max(1, len(ids) - self._wanted.prompt_tokens)
        views = [self._reader.unseen(i, token, PROMPT) for i, token in enumerate(ids[:first])]
        if first > 1:
            self._note(
                f"{name}: of the prompt's {len(ids)} tokens the first {first} are without probabilities."
            )
        if first >= len(ids):
            return views
        self._progress(f"{name}: {len(ids) - first} tokens of the prompt")
        tokens = [RunToken(i, token, GIVEN) for i, token in enumerate(ids[first:], first)]

        def take(_: int, token: RunToken, history: object, row: Float32) -> None:
            views.append(self._reader.seen(token.position, token.token_id, PROMPT, row))

        data, arrays = interventions_to_data(settled(branch))
        walk(
            self._llm,
            replace(
                branch,
                prompt_ids=ids[:first],
                tokens=tokens,
                drops=[],
                interventions=data,
                arrays=arrays,
                companion_ids=None,
            ),
            take,
        )
        return views

    # --- what followed --------------------------------------------------------------------------------
    def _output(self, branch: RunBranch, name: str, start: int) -> list[TokenView]:
        sampled = branch.strategy in SAMPLED
        if not sampled:
            self._note(
                f"{name}: its tokens were chosen by '{branch.strategy}', not drawn one by one: no stages."
            )
        views: list[TokenView] = []
        differing = 0
        total = len(branch.tokens)

        def see(record: Record) -> None:
            nonlocal differing
            if len(views) % TOLD_AT_A_TIME == 0:
                first = start + len(views)
                last = min(first + TOLD_AT_A_TIME, total)
                self._progress(f"{name}: tokens {first + 1} to {last} of {total}")
            explained = sampled and record.kind == DRAWN
            if explained and record.choice.token_id != record.token_id:
                differing += 1
                explained = False
            views.append(self._token(record, explained))

        each_record(self._llm, branch, see, start)
        if differing:
            self._note(
                f"{name}: {differing} of its tokens are not what these parameters choose here, and are shown without "
                "their stages; `pellucid replay` names the first difference of a run file."
            )
        return views

    def _token(self, record: Record, explained: bool) -> TokenView:
        flags = [
            name.replace("_", " ") for name in record.flags.names if explained or name in _OF_EVERY_TOKEN
        ]
        return self._reader.seen(
            record.position,
            record.token_id,
            record.kind,
            record.logits,
            choice=record.choice if explained else None,
            processed=record.processed if explained else None,
            seconds=record.seconds.forward + record.seconds.choose or None,
            note=Why(record).sentence if explained or record.kind != DRAWN else "",
            flags=flags,
        )

    # --- the layers -----------------------------------------------------------------------------------
    def _with_lens(
        self, branch: RunBranch, name: str, prompt: list[TokenView], output: list[TokenView]
    ) -> tuple[list[TokenView], list[TokenView]]:
        self._progress(f"{name}: layers")
        interventions = settled(branch)
        shift = len(branch.tokens) - len(output)  # tokens that are the parent's
        for segment in segments(branch):
            ids = segment.context + branch.output_ids[segment.first : segment.last]
            border = len(segment.context)
            in_prompt = (
                [i for i, view in enumerate(prompt) if view.logprob is not None] if not segment.first else []
            )
            positions = [prompt[i].position for i in in_prompt]
            first = max(segment.first, shift)
            positions += range(
                border + first - segment.first, border + max(first, segment.last) - segment.first
            )
            self.layer_names, cells = lens_of(self._llm, ids, positions, self._reader, interventions)
            for i, layers in zip(in_prompt, cells[: len(in_prompt)], strict=True):
                prompt[i] = replace(prompt[i], layers=layers)
            for i, layers in enumerate(cells[len(in_prompt) :], first - shift):
                output[i] = replace(output[i], layers=layers)
        return prompt, output

    def _note(self, line: str) -> None:
        self.notes.append(line[:1].upper() + line[1:])


def settled(branch: RunBranch) -> tuple[Intervention, ...]:
    """What was changed within the model, by absolute positions."""
    given = interventions_from_data(branch.interventions, branch.arrays)
    return at_positions(given, len(branch.prompt_ids))
