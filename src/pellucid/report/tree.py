"""The tree of branches as a nested list of links: which branch came from which, where, and what it says there."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.report.html import escape, show
from pellucid.report.page_data import PROMPT, BranchView

_BEGINNING = 60  # characters of a branch's text


def tree(branches: Sequence[BranchView]) -> str:
    """ "" for a single branch."""
    if len(branches) < 2:
        return ""
    below: dict[int | None, list[int]] = {}
    for index, branch in enumerate(branches):
        below.setdefault(_above(branches, branch), []).append(index)
    return f'<nav class="tree" aria-label="branches">{_list(branches, below)}</nav>'


def _above(branches: Sequence[BranchView], branch: BranchView) -> int | None:
    """What it stands under: a sibling stands beside its parent."""
    while branch.parent is not None and branch.sibling:
        branch = branches[branch.parent]
    return branch.parent


def _list(branches: Sequence[BranchView], below: dict[int | None, list[int]]) -> str:
    """Without recursion: a chain of forks may be longer than Python's stack."""
    parts = ["<ul>"]
    pending = list(reversed(below.get(None, [])))
    depth = [len(pending)]
    while depth:
        if depth[-1] == 0:
            parts.append("</ul>")
            depth.pop()
            if depth:
                parts.append("</li>")
            continue
        depth[-1] -= 1
        index = pending.pop()
        parts.append(f"<li>{_link(index, branches[index])}")
        children = below.get(index, [])
        if children:
            parts.append("<ul>")
            pending += reversed(children)
            depth.append(len(children))
        else:
            parts.append("</li>")
    return "".join(parts)


def _link(index: int, branch: BranchView) -> str:
    own = [token for token in branch.tokens if token.kind != PROMPT]
    text = "".join(show(token.text) for token in own)
    begins = text[:_BEGINNING] + ("\u2026" if len(text) > _BEGINNING else "")
    where = "" if branch.parent is None or branch.sibling else f" from position {branch.forked_at}"
    count = f"{len(own)} token{'' if len(own) == 1 else 's'}"
    ended = f", {escape(branch.ended)}" if branch.ended else ""
    return (
        f'<a href="#branch-{index}">{escape(branch.name)}</a>'
        f" <small>{count}{where}{ended}</small> <q>{escape(begins)}</q>"
    )
