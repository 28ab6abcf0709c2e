"""The protocol of a drafter: who guesses the next tokens. To add one, copy `context.py`.

A guess costs time where it is wrong and changes nothing else: every token is chosen from its own row of logits.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pellucid.sampling.base import History


class Draft(NamedTuple):
    """ids: guesses of the tokens at positions len(history.token_ids), + 1, ...; as many as the drafter likes to
    give, none where it has no guess. confidence: a small number by which a drafter tells its better guesses from its
    worse ones (the length of a match); acceptance is estimated for each of them."""

    ids: list[int]
    confidence: int = 0


class Drafter(Protocol):
    """One for each request. What it gives must follow from the history alone: histories of one sample may be cut
    and go on otherwise between two calls."""

    name: str  # in traces and results
    costly: (
        bool  # whether a guess costs more than some microseconds: then it is asked only for what is checked
    )

    def draft(self, history: History, most: int) -> Draft:
        """At most `most` ids. An exception ends the use of this drafter in this request, never the request."""


NO_DRAFT = Draft([])
