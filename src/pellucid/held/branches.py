"""The tree that a generation and its forks make: who came from whom, and where."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pellucid.arrays import common_length

if TYPE_CHECKING:
    from pellucid.held.generation import Generation


class Branch:
    """One generation's place in the tree. Knows the generation only while somebody else holds it, so that the tree
    keeps no memory alive; where it is gone, `generation` is None and the branch stays while branches of it do.

    forked_at: tokens that it had in common with its parent when it was forked. label: a name that you may give it.
    """

    def __init__(self, generation: Generation, parent: Branch | None = None, forked_at: int = 0) -> None:
        self._generation = weakref.ref(generation)
        self._parent = parent
        self._children: list[Branch] = []
        self.forked_at = forked_at
        self.label = ""
        if parent is not None:
            parent._children.append(self)
            self._skip_the_gone()

    @property
    def generation(self) -> Generation | None:
        return self._generation()

    @property
    def parent(self) -> Branch | None:
        """The nearest branch above that is alive, or leads to others that are."""
        self._skip_the_gone()
        return self._parent

    @property
    def children(self) -> list[Branch]:
        """Branches from this one that are alive, or lead to some that are; in the order of their making."""
        self._children = [child for child in self._children if child.generation or child.children]
        return self._children.copy()

    @property
    def root(self) -> Branch:
        branch = self
        while branch.parent is not None:
            branch = branch.parent
        return branch

    @property
    def depth(self) -> int:
        """How many branches are above."""
        return 0 if self.parent is None else self.parent.depth + 1

    def walk(self) -> Iterator[Branch]:
        """This branch and all below it, parents first."""
        pending = [self]
        while pending:
            branch = pending.pop()
            yield branch
            pending += reversed(branch.children)

    def _skip_the_gone(self) -> None:
        """Branches above that are gone, and lead to this one only, are left out: a chain of forks does not grow."""
        above = self._parent
        while above is not None and above.generation is None and above.children == [self]:
            self.forked_at = min(self.forked_at, above.forked_at) if above._parent else self.forked_at
            if above._parent is not None:
                siblings = above._parent._children
                siblings[siblings.index(above)] = self
            self._parent = above = above._parent

    def __repr__(self) -> str:
        generation = self.generation
        what = "gone" if generation is None else f"{len(generation)} tokens"
        name = f" {self.label!r}" if self.label else ""
        return f"<Branch{name}: {what}, {len(self.children)} children>"


def parting(a: Generation, b: Generation) -> int:
    """The first position where two generations differ: how many tokens they begin with in common."""
    return common_length(a.token_array, b.token_array)
