"""The words of a report's head and foot: title, facts, names of branches, settings, timings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pellucid.glass.run import DRAWN, Run, RunBranch
from pellucid.settings import Setting, Settings

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.text.tokenizer import Tokenizer

_TITLE = 90  # characters
_SECONDS = {"tokenize": "tokenise", "time_to_first_token": "first token after", "total": "in all"}


def title_of(branches: Sequence[RunBranch], tokenizer: Tokenizer, otherwise: str) -> str:
    """The beginning of the first prompt; where it was not given as text, as in a chat, its end, without control
    tokens."""
    if not branches:
        return otherwise
    prompt = branches[0].prompt
    if prompt is not None:
        text = " ".join(prompt.split())
        return (text if len(text) <= _TITLE else text[: _TITLE - 1] + "\u2026") or otherwise
    ids = [i for i in branches[0].prompt_ids[-_TITLE:] if i not in tokenizer.special_ids]
    text = " ".join(tokenizer.decode(ids).split())
    return (text if len(text) <= _TITLE else "\u2026" + text[1 - _TITLE :]) or otherwise


def branch_names(branches: Sequence[RunBranch]) -> list[str]:
    """A name for each: samples of one prompt by their numbers, forks as branches; requests where there are several."""
    several = len({branch.request for branch in branches}) > 1
    samples: dict[int, list[int]] = {}
    for branch in branches:
        if _is_sample(branch):
            samples.setdefault(branch.request, []).append(branch.sample_index)
    names: list[str] = []
    for branch in branches:
        of_request = samples.get(branch.request, [])
        parts = [f"request {branch.request}"] if several else []
        if not _is_sample(branch) or len(set(of_request)) < len(of_request):
            parts.append(f"branch {branch.index}")
        elif len(of_request) > 1:
            parts.append(f"sample {branch.sample_index}")
        names.append(", ".join(parts) or "text")
    return names


def _is_sample(branch: RunBranch) -> bool:
    """Whether it shares nothing with another but the prompt."""
    return branch.parent is None or branch.forked_at == len(branch.prompt_ids)


def ended(branch: RunBranch) -> str:
    """ "" while it goes on."""
    if branch.finish_reason is None:
        return ""
    match = f" on {branch.stop_match!r}" if branch.stop_match is not None else ""
    return f"{branch.finish_reason}{match}"


def facts_of_branches(branches: Sequence[RunBranch], llm: LLM) -> list[tuple[str, str]]:
    info = llm.info
    facts = [("model", f"{os.path.basename(str(llm.settings['model'].value))} ({info.architecture})")]
    if not branches:
        return facts
    first = branches[0]
    roots = [branch for branch in branches if branch.parent is None]
    facts.append(
        ("prompt" if len(roots) == 1 else "prompts", _tokens(sum(len(each.prompt_ids) for each in roots)))
    )
    facts.append(("after it", _tokens(sum(_num_own(branches, branch) for branch in branches))))
    greedy = all(params.greedy for params in (first.params_of(i) for i in range(len(first.plans))))
    facts.append(("choice", "greedy" if greedy else f"drawn, seed {first.seed}"))
    return facts


def facts_of_run(run: Run, llm: LLM) -> tuple[tuple[str, str], ...]:
    facts = facts_of_branches(run.branches, llm)
    rate = _rate(run.branches)
    if rate:
        facts.append(("decode", f"{rate:.1f} tokens/s"))
    instructions = run.build.get("instruction_set") or run.build.get("backend") or ""
    facts += [
        ("recorded", run.created.replace("T", " ").replace("+00:00", " UTC")),
        ("by", f"pellucid {run.version} {instructions}".strip()),
        ("file", os.path.basename(run.path)),
    ]
    return tuple((name, value) for name, value in facts if value)


def shared(branches: Sequence[RunBranch], branch: RunBranch) -> int:
    """How many of its tokens are its parent's: no more than when it was forked, and fewer where either was rewound and
    went on otherwise."""
    if branch.parent is None:
        return 0
    parent = branches[branch.parent]
    ours, theirs = (each.prompt_ids + each.output_ids for each in (branch, parent))
    most = min(branch.forked_at or 0, len(ours), len(theirs))
    return next((i for i in range(most) if ours[i] != theirs[i]), most)


def _num_own(branches: Sequence[RunBranch], branch: RunBranch) -> int:
    """Its tokens after the prompt that are not its parent's."""
    return len(branch.tokens) - max(0, shared(branches, branch) - len(branch.prompt_ids))


def settings_of(load: Settings, branches: Sequence[RunBranch]) -> tuple[Setting, ...]:
    """Those of the model, then those of each plan that are not listed yet; where plans differ, the note says whose."""
    listed = {name: {(repr(each.value), each.origin)} for name, each in load.items()}
    found = list(load.values())
    for index, branch, settings in _plans(branches):
        for name, each in settings.items():
            known = listed.setdefault(name, set())
            if (repr(each.value), each.origin) in known:
                continue
            where = f"branch {branch.index}" + (f", change {index}" if index else "")
            note = "; ".join(filter(None, [each.note, where if known else ""]))
            known.add((repr(each.value), each.origin))
            found.append(Setting(name, each.value, each.origin, note))
    return tuple(found)


def _plans(branches: Sequence[RunBranch]) -> Iterator[tuple[int, RunBranch, Settings]]:
    for branch in branches:
        for index, plan in enumerate(branch.plans):
            yield index, branch, plan.settings


def timings_of(branches: Sequence[RunBranch]) -> tuple[tuple[str, float], ...]:
    """What each request took, and its passes and choices in sum. A pass counts once, whoever shared it."""
    found: list[tuple[str, float]] = []
    firsts = {branch.request: branch for branch in reversed(branches)}  # its samples have the same times
    for request, branch in sorted(firsts.items()):
        before = f"request {request}: " if len(firsts) > 1 else ""
        for key, words in _SECONDS.items():
            seconds = branch.timings.get(key)
            if isinstance(seconds, int | float) and seconds > 0:
                found.append((before + words, float(seconds)))
    passes = {token.pass_number: token for branch in branches for token in branch.tokens if token.pass_number}
    sums = [
        (f"{len(passes)} forward passes", sum(token.forward for token in passes.values())),
        ("their scheduling", sum(token.schedule for token in passes.values())),
        ("the choices", sum(token.choose for token in passes.values())),
        ("text from tokens", sum(token.text for branch in branches for token in branch.tokens)),
    ]
    return tuple(found + [(words, seconds) for words, seconds in sums if seconds > 0])


def _rate(branches: Sequence[RunBranch]) -> float | None:
    """Tokens a second after the first one of each sample; None: not known."""
    times = branches[0].timings if len({branch.request for branch in branches}) == 1 else {}
    first, total = times.get("time_to_first_token"), times.get("total")
    count = sum(sum(token.kind == DRAWN for token in branch.tokens) - 1 for branch in branches)
    if not isinstance(first, float) or not isinstance(total, float) or total <= first or count < 1:
        return None
    return count / (total - first)


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"
