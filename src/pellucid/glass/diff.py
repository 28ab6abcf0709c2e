"""Where two runs part, and why: model, build, settings, prompt, tokens, hidden states. Needs no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.glass.run import Plan, Run, RunBranch, RunToken
from pellucid.glass.words import listed
from pellucid.settings import Settings

# What changes no bit: a difference in it never is why two runs part.
_HARMLESS = frozenset(
    {"num_threads", "prefill_chunk", "max_sequences", "kv_memory", "prefix_caching", "model", "deadline"}
)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not the same: `name`, its value in a and in b, and where they came from (settings)."""

    name: str
    a: Any
    b: Any
    origin_a: str = ""
    origin_b: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.a, self.origin_a)} in a, {_shown(self.b, self.origin_b)} in b"


@dataclass(frozen=True, slots=True)
class Parting:
    """The first difference of two branches. index: of the step, from 0; None: the prompts differ, at `position`. what:
    "prompt", "layer", "hidden state", "token", "kind" or "length". layer: the first whose output differs, where that is
    recorded. gap: an estimate of the distance of the two hidden states, where they differ."""

    what: str
    position: int
    index: int | None = None
    layer: int | None = None
    gap: float | None = None
    token_a: int | None = None
    token_b: int | None = None


@dataclass
class BranchDiff:
    """Branch `index` of both runs. parting: None: the same. changes: settings of the request that differ and may
    matter. harmless: that differ and change no bit. why: in words."""

    index: int
    parting: Parting | None
    changes: list[Change]
    harmless: list[Change]
    why: str


@dataclass(repr=False)
class RunDiff:
    """model, build: what differs of the fingerprints and of what computed. branches: of those that both runs have."""

    a: Run
    b: Run
    model: list[Change]
    build: list[Change]
    branches: list[BranchDiff] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether the two runs have the same branches with the same tokens, and nothing recorded of them differs."""
        return len(self.a.branches) == len(self.b.branches) and not any(
            each.parting for each in self.branches
        )

    def lines(self, text_of: Callable[[int], str] | None = None) -> list[str]:
        """For a terminal. text_of: the text of a token id, where a tokenizer is at hand."""
        told = [
            f"{title}: {change}"
            for title, changes in (("model", self.model), ("build", self.build))
            for change in changes
        ]
        if len(self.a.branches) != len(self.b.branches):
            told.append(f"branches: {len(self.a.branches)} in a, {len(self.b.branches)} in b")
        for branch in self.branches:
            head = f"branch {branch.index}: " if len(self.branches) > 1 else ""
            told.append(f"{head}{spoken(branch.parting, text_of)}{branch.why}")
            told += [f"  {change}" for change in branch.changes]
            told += [f"  {change} (changes no bit)" for change in branch.harmless]
        return told

    def __repr__(self) -> str:
        parted = sum(1 for branch in self.branches if branch.parting)
        counts = f"{len(self.a.branches)} and {len(self.b.branches)} branches"
        found = "the same" if self.same else f"{counts}, {parted} of them part"
        return f"<RunDiff of {self.a.path} and {self.b.path}: {found}>"

    def to_dict(self) -> dict[str, Any]:
        from dataclasses import asdict

        return {
            "same": self.same,
            "model": [asdict(change) for change in self.model],
            "build": [asdict(change) for change in self.build],
            "branches": [asdict(branch) for branch in self.branches],
        }


def diff_runs(a: Run, b: Run) -> RunDiff:
    """a, b: read by `read_run`. Branches are compared in the order of the files."""
    model = _changes(a.model, b.model)
    found = RunDiff(
        a, b, model, _changes({"pellucid": a.version, **a.build}, {"pellucid": b.version, **b.build})
    )
    for one, other in zip(a.branches, b.branches, strict=False):
        found.branches.append(_branches(one, other, found))
    return found


def parting(a: RunBranch, b: RunBranch) -> Parting | None:
    """Where two branches part; None: nowhere."""
    for position, (x, y) in enumerate(zip(a.prompt_ids, b.prompt_ids, strict=False)):
        if x != y:
            return Parting("prompt", position, token_a=x, token_b=y)
    if len(a.prompt_ids) != len(b.prompt_ids):
        return Parting("prompt", min(len(a.prompt_ids), len(b.prompt_ids)))
    for index, (one, other) in enumerate(zip(a.tokens, b.tokens, strict=False)):
        found = step_parting(index, one, other)
        if found is not None:
            return found
    if len(a.tokens) != len(b.tokens):
        index = min(len(a.tokens), len(b.tokens))
        longer = a.tokens if len(a.tokens) > index else b.tokens
        ids = [tokens[index].token_id if len(tokens) > index else None for tokens in (a.tokens, b.tokens)]
        return Parting("length", longer[index].position, index, token_a=ids[0], token_b=ids[1])
    return None


def step_parting(index: int, a: RunToken, b: RunToken) -> Parting | None:
    """One step of two branches that are the same before it: in the order in which its numbers come to be."""
    both = a.layers is not None and b.layers is not None
    layer = next(
        (i for i, (x, y) in enumerate(zip(a.layers or (), b.layers or (), strict=False)) if x != y), None
    )
    hidden = a.digest is not None and b.digest is not None and a.digest != b.digest
    gap = abs(a.sketch - b.sketch) if hidden and a.sketch is not None and b.sketch is not None else None
    ids = {"token_a": a.token_id, "token_b": b.token_id}
    if both and layer is not None:
        return Parting("layer", a.position, index, layer, gap, **ids)
    if hidden:
        return Parting("hidden state", a.position, index, None, gap, **ids)
    if a.token_id != b.token_id:
        return Parting("token", a.position, index, **ids)
    if a.kind != b.kind or a.position != b.position:
        return Parting("kind", a.position, index, **ids)
    return None


def spoken(found: Parting | None, text_of: Callable[[int], str] | None = None) -> str:
    """In words."""
    if found is None:
        return "the same"

    def named(token_id: int | None) -> str:
        text = "" if token_id is None or text_of is None else f" {text_of(token_id)!r}"
        return "nothing" if token_id is None else f"token {token_id}{text}"

    where = (
        f"position {found.position}"
        if found.index is None
        else f"step {found.index}, position {found.position}"
    )
    tokens = f"{named(found.token_a)} in a, {named(found.token_b)} in b"
    gap = f" (gap about {found.gap:.2g})" if found.gap is not None else ""
    if found.what == "layer":
        return f"{where}: the output of layer {found.layer} is the first that differs{gap}; {tokens}"
    if found.what == "hidden state":
        return f"{where}: the final hidden state differs{gap}; {tokens}"
    if found.what == "length":
        return f"{where}: one has ended; {tokens}"
    if found.what == "kind":
        return f"{where}: the same token, come there in another way"
    return f"{where}: {'the prompts differ: ' if found.what == 'prompt' else ''}{tokens}"


def _branches(a: RunBranch, b: RunBranch, whole: RunDiff) -> BranchDiff:
    found = parting(a, b)
    plan = 0
    if found is not None and found.index is not None and found.index < min(len(a.tokens), len(b.tokens)):
        plan = min(a.tokens[found.index].plan, b.tokens[found.index].plan)
    changes = _of_plans(a.plans[min(plan, len(a.plans) - 1)], b.plans[min(plan, len(b.plans) - 1)])
    harmless = [change for change in changes if change.name in _HARMLESS]
    matters = [change for change in changes if change.name not in _HARMLESS]
    return BranchDiff(a.index, found, matters, harmless, _why(found, matters, a, b, whole))


def _why(found: Parting | None, changes: list[Change], a: RunBranch, b: RunBranch, whole: RunDiff) -> str:
    """What of the differences accounts for it."""
    if found is None:
        return "; settings that changed nothing here differ" if changes else ""
    if found.what == "prompt":
        return ""
    numbers = [change.name for change in whole.model if change.name != "block_size"]
    if a.interventions != b.interventions:
        numbers.append("interventions")
    settings = [change.name for change in changes]
    if found.what in ("layer", "hidden state"):
        return (
            f"; why: another {listed(numbers)}"
            if numbers
            else "; why: unknown: model, arithmetic and tokens are the same"
        )
    reasons = settings + ([] if _compared(a, b, found) else numbers)
    if reasons:
        return f"; why: another {listed(reasons)}"
    return (
        "; why: unknown: the settings are the same"
        if _compared(a, b, found)
        else "; why: the files do not tell"
    )


def _compared(a: RunBranch, b: RunBranch, found: Parting) -> bool:
    """Whether the hidden states of the step are known to be the same, so that the choice alone is to blame."""
    if found.index is None or found.index >= min(len(a.tokens), len(b.tokens)):
        return False
    return a.tokens[found.index].digest is not None and b.tokens[found.index].digest is not None


def _of_plans(a: Plan, b: Plan) -> list[Change]:
    changes = _of_settings(a.settings, b.settings)
    if a.seed != b.seed and not any(change.name == "seed" for change in changes):
        changes.append(Change("seed", a.seed, b.seed))
    if a.stop_ids != b.stop_ids:
        changes.append(Change("stop_ids", list(a.stop_ids), list(b.stop_ids)))
    return changes


def _of_settings(a: Settings, b: Settings) -> list[Change]:
    names = [*a, *(name for name in b if name not in a)]
    changes = []
    for name in names:
        one, other = a.get(name), b.get(name)
        if (one and one.value) != (other and other.value):
            changes.append(
                Change(
                    name,
                    one and one.value,
                    other and other.value,
                    one.origin if one else "",
                    other.origin if other else "",
                )
            )
    return changes


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    return [Change(name, a.get(name), b.get(name)) for name in {**a, **b} if a.get(name) != b.get(name)]


def _shown(value: Any, origin: str) -> str:
    text = repr(value)
    text = text if len(text) <= 40 else text[:37] + "..."
    return f"{text} ({origin})" if origin else text
