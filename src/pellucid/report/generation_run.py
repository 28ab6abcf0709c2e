"""A generation in memory, and the branches of its tree, as the branches of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.glass.apply import interventions_of
from pellucid.glass.intervention_file import interventions_to_data
from pellucid.glass.run import PROMPT, Plan, RunBranch, RunToken
from pellucid.held.branches import parting

if TYPE_CHECKING:
    from pellucid.held.branches import Branch
    from pellucid.held.generation import Generation


def branches_of(generation: Generation) -> tuple[list[RunBranch], list[str]]:
    """All generations of its tree that somebody holds, parents first, and the labels that they were given. A branch is
    forked where its tokens leave those of its nearest parent that is held: earlier than it was forked if either has
    been rewound since."""
    numbers: dict[Branch, int] = {}
    found: list[RunBranch] = []
    labels: list[str] = []
    for branch in generation.branch.root.walk():
        each = branch.generation
        if each is None:
            continue
        above = branch.parent
        while above is not None and above not in numbers:
            above = above.parent
        holder = None if above is None else above.generation
        numbers[branch] = len(found)
        made = _branch(each, len(found))
        if above is not None and holder is not None:
            made.parent, made.forked_at = numbers[above], parting(holder, each)
        found.append(made)
        labels.append(branch.label)
    return found, labels


def _branch(generation: Generation, index: int) -> RunBranch:
    ids = generation.token_array.tolist()
    kinds = {record.position: record.kind for record in generation.records}
    start = min([generation._log.borders[0], *kinds])
    stop_ids = tuple(generation._plan.ending.stop_ids.tolist())
    branch = RunBranch(
        index=index,
        request=0,
        prompt=generation.prompt,
        prompt_ids=ids[:start],
        plans=[Plan({}, generation.seed or 0, stop_ids, generation.settings)],
        sample_index=generation.sample_index,
        tokens=[RunToken(p, ids[p], kinds.get(p, PROMPT)) for p in range(start, len(ids))],
        finish_reason=generation.finish_reason,
        stop_match=generation.stop_match,
    )
    changes = interventions_of(generation._held.sequence.watch)
    branch.interventions, branch.arrays = interventions_to_data(changes)
    branch._params = [generation.params]  # as they are: they may hold functions
    return branch
