"""Drafts from a constraint: the text that must come."""

from __future__ import annotations

from pellucid.decoding.drafts.base import Draft
from pellucid.sampling.base import History
from pellucid.sampling.constraint import Constraint


class GrammarDrafter:
    """The model may still choose another tokenisation of the forced text: that is what the check is for."""

    name = "grammar"
    costly = False

    def __init__(self, constraint: Constraint) -> None:
        self.constraint = constraint

    def draft(self, history: History, most: int) -> Draft:
        return Draft(self.constraint.state(history).forced()[:most])

    def allowed(self, history: History, ids: list[int]) -> list[int]:
        """As many of another drafter's ids as the constraint allows."""
        return ids[: self.constraint.state(history).allows(ids)] if ids else ids
