"""A run made again, and proved to be the same bit by bit, or the first step that is not.

Two ways. "rows": every position is computed again in long passes, as a prompt is, and every choice is made again
from its row; quick, and itself a test of the contract, since the run went one token a pass. "generate": the requests
are generated again, all together.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pellucid.errors import RunFileError, UsageError
from pellucid.front.looking import looking_of
from pellucid.glass.choices import SAMPLED, Choices
from pellucid.glass.diff import Parting, parting, spoken, step_parting
from pellucid.glass.digests import DigestWatch
from pellucid.glass.intervention_file import interventions_from_data
from pellucid.glass.rows import RunHistory, check_model, numbers_differ, walk
from pellucid.glass.run import DRAWN, Run, RunBranch, RunToken
from pellucid.glass.runfile import read_run
from pellucid.types import Float32

if TYPE_CHECKING:
    from pellucid.llm import LLM


@dataclass
class BranchReplay:
    """first: the first difference (a: then, b: now); None: equal. num_tokens: computed again; num_choices: of those,
    made again; num_digests, num_layers: hidden states and outputs of layers that were compared; num_different: steps
    that differ in any of it (rows only: of a generation, what follows the first difference says nothing)."""

    index: int
    num_tokens: int = 0
    num_choices: int = 0
    num_digests: int = 0
    num_layers: int = 0
    num_different: int = 0
    first: Parting | None = None

    def note(self, found: Parting | None) -> None:
        self.num_different += found is not None
        self.first = self.first or found


@dataclass(repr=False)
class Replay:
    """What came of it. notes: what could not be compared, and why."""

    run: Run
    way: str
    seconds: float = 0.0
    branches: list[BranchReplay] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether all that was compared is the same."""
        return not any(branch.first for branch in self.branches)

    def lines(self, text_of: Any = None) -> list[str]:
        """For a terminal."""
        count = {name: sum(getattr(b, name) for b in self.branches) for name in _COUNTED}
        told = ", ".join(f"{count[name]} {word}" for name, word in _COUNTED.items() if count[name])
        lines = [
            f"{'equal' if self.equal else 'not equal'}: {told or 'nothing to compare'}, {self.seconds:.2f} s"
        ]
        for branch in self.branches:
            if branch.first is not None:
                words = spoken(branch.first, text_of).replace(" in a", " then").replace(" in b", " now")
                more = f"; {branch.num_different} steps differ in all" if branch.num_different > 1 else ""
                lines.append(f"branch {branch.index}, {words}{more}")
        return lines + self.notes

    def __repr__(self) -> str:
        return f"<Replay of {self.run.path} by {self.way}: {self.lines()[0]}>"

    def to_dict(self) -> dict[str, Any]:
        from dataclasses import asdict

        branches = [asdict(branch) for branch in self.branches]
        return {
            "equal": self.equal,
            "way": self.way,
            "seconds": self.seconds,
            "branches": branches,
            "notes": self.notes,
        }


_COUNTED = {
    "num_tokens": "tokens",
    "num_choices": "choices made again",
    "num_digests": "hidden states compared",
    "num_layers": "outputs of layers compared",
}


_FROM_OUTSIDE = (None, "abort", "deadline", "error")
"""Finish reasons that do not follow from the tokens."""


def replay(llm: LLM, run: Run, way: str = "rows") -> Replay:
    """Make the run again on `llm` and compare. way: "rows" or "generate".

    Errors: RunFileError (another model; parameters that no file can hold), UsageError, those of `generate`."""
    if way not in ("rows", "generate"):
        raise UsageError(f"replay: expected way 'rows' or 'generate', got {way!r:.40}")
    check_model(run, llm)
    done = Replay(run, way, notes=[f"differs from the run: {each}" for each in numbers_differ(run, llm)])
    begun = perf_counter()
    if way == "rows":
        for branch in run.branches:
            done.branches.append(_by_rows(llm, branch, done.notes))
    else:
        _by_generating(llm, run, done)
    done.seconds = perf_counter() - begun
    return done


def _by_rows(llm: LLM, branch: RunBranch, notes: list[str]) -> BranchReplay:
    choices, result = Choices(llm, branch), BranchReplay(branch.index)
    own = 0 if branch.forked_at is None else max(0, branch.forked_at - len(branch.prompt_ids))
    sampled = branch.strategy in SAMPLED
    if not sampled:
        notes.append(
            f"branch {branch.index}: choices of '{branch.strategy}' are made again by way of generating only"
        )

    digested = any(token.digest is not None for token in branch.tokens)
    layers = any(token.layers is not None for token in branch.tokens)
    watches: list[DigestWatch] = []

    def watch() -> DigestWatch:
        loaded = llm._need()
        rows = (
            loaded.engine.scheduler.prefill_chunk + loaded.engine.scheduler.max_sequences
        )  # of a pass at most
        watches[:] = [DigestWatch(len(loaded.model.layers), layers=layers, newest=rows)]
        return watches[0]

    def take(index: int, token: RunToken, history: RunHistory, row: Float32) -> None:
        chosen = token.token_id
        if token.kind == DRAWN and sampled:
            chosen = choices.choose(token, history, row)
        if index < own:
            return  # its parent's
        result.num_tokens += 1
        result.num_choices += token.kind == DRAWN and sampled
        now = RunToken(token.position, chosen, token.kind, token.plan)
        found = watches[0].rows_at(token.position - 1) if watches and token.digest is not None else None
        if found is not None:
            hidden, projection, outputs = found.told()
            now = replace(now, digest=hidden, sketch=projection, layers=outputs)
            result.num_digests += 1
            result.num_layers += len(outputs or ()) if token.layers is not None else 0
        result.note(step_parting(index, token, now))

    walk(llm, branch, take, start=0 if choices.stateful else own, watch=watch if digested else None)
    return result


def _by_generating(llm: LLM, run: Run, done: Replay) -> None:
    """Requests whose tokens were all drawn; the others are told of."""
    requests: dict[int, list[RunBranch]] = {}
    for branch in run.branches:
        requests.setdefault(branch.request, []).append(branch)
    able = []
    for number, branches in requests.items():
        if all(len(b.plans) == 1 and all(t.kind == DRAWN for t in b.tokens) for b in branches):
            able.append(branches)
        else:
            done.notes.append(f"request {number} was driven by hand: replay it by rows")
    if not able:
        raise RunFileError(f"{run.path}: no request can be generated again; replay it by rows")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "again"
        _generate(llm, able, path, layers=run.num_layers > 0)
        again = read_run(path)
    now: dict[int, list[RunBranch]] = {}
    for branch in again.branches:
        now.setdefault(branch.request, []).append(branch)
    for number, branches in enumerate(able):
        by_sample = {branch.sample_index: branch for branch in now[number]}
        for branch in branches:
            done.branches.append(_compare(branch, by_sample[branch.sample_index]))
    done.branches.sort(key=lambda branch: branch.index)


def _generate(llm: LLM, requests: list[list[RunBranch]], path: Path, *, layers: bool) -> None:
    """All of them at a time, recorded in the same order."""
    from pellucid.front.recorder import Recorder

    with Recorder(path, layers=layers) as recorder:
        recorder.attach(llm)
        running = []
        for branches in requests:
            first = branches[0]
            most = max(len(branch.tokens) for branch in branches)
            params = first.seeded_params
            if first.companion_ids is not None:
                params = params.replace(negative_prompt=first.companion_ids)
            if any(branch.finish_reason in _FROM_OUTSIDE for branch in branches):
                params = params.replace(max_tokens=most, deadline=None)
            given = interventions_from_data(first.interventions, first.arrays)
            (look,) = looking_of(None, given, 1)
            request = llm._prepare(
                first.prompt_ids,
                params,
                False,
                False,
                {},
                cache_salt=first.cache_salt,
                record=recorder,
                looking=look,
                open_ended=True,
            )
            running.append(request)
        for request in running:
            llm._driver.add(request)
        for request in running:
            while not request.done:
                llm._driver.advance(request)
            if request.error is not None:
                raise request.error


def _compare(then: RunBranch, now: RunBranch) -> BranchReplay:
    result = BranchReplay(then.index)
    if then.finish_reason in _FROM_OUTSIDE:
        now.tokens = now.tokens[: len(then.tokens)]
    result.note(parting(then, now))
    pairs = list(zip(then.tokens, now.tokens, strict=False))
    result.num_tokens = result.num_choices = len(pairs)
    result.num_digests = sum(a.digest is not None and b.digest is not None for a, b in pairs)
    result.num_layers = sum(len(a.layers) for a, b in pairs if a.layers is not None and b.layers is not None)
    return result
