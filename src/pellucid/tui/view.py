"""What the debugger shows at one moment, as plain data: made beside the model, drawn by the panes."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.sampling.record import ChoiceRecord

PROMPT = "prompt"  # kind of a token that was part of the prompt; the other kinds are those of `steps.py`


@dataclass(frozen=True, slots=True)
class Cell:
    """One token of the text. text: what it adds, "" where it begins a character that a later token completes.
    probability: under the model, given what stands before it; None: not computed (the first token has none)."""

    text: str
    probability: float | None
    kind: str


@dataclass(frozen=True, slots=True)
class Row:
    """A token that could stand at the cursor. probability: under the model. processed: after the stages, the one that
    it is drawn with; 0: excluded, None: nothing is drawn there (a position of the prompt)."""

    token_id: int
    text: str
    probability: float
    processed: float | None
    rank: int


@dataclass(frozen=True, slots=True)
class Look:
    """The distribution at the cursor. stands: the token that is there; None: none yet. choice: what the present
    settings choose there; None with the reason in `no_choice`. names: texts of the tokens that the choice speaks of."""

    position: int
    rows: tuple[Row, ...]
    stands: Row | None
    kind: str | None
    entropy: float  # nats
    choice: ChoiceRecord | None
    no_choice: str
    names: dict[int, str]

    @property
    def token(self) -> int:
        """That of which the layers are asked: the one that stands there, would be chosen, or is the most probable."""
        if self.stands is not None:
            return self.stands.token_id
        return self.rows[0].token_id if self.choice is None else self.choice.token_id


@dataclass(frozen=True, slots=True)
class LayerRow:
    """What a layer would predict, were it the last: its most probable token, and the token looked at."""

    name: str
    top: str
    top_probability: float
    probability: float
    rank: int


@dataclass(frozen=True, slots=True)
class Layers:
    """Of one position. token: the one whose probability is followed. note: why there are no rows."""

    token: str
    rows: tuple[LayerRow, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class BranchRow:
    """number: as it is switched to. depth: branches above it. forked_at: tokens in common with the one above."""

    number: int
    depth: int
    current: bool
    num_tokens: int
    forked_at: int
    tail: str
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class View:
    """cursor: a position, len(cells) for the token to come. look: None where nothing is predicted (position 0)."""

    model: str
    cells: tuple[Cell, ...]
    cursor: int
    look: Look | None
    branches: tuple[BranchRow, ...]
    settings: str
    finish_reason: str | None
    computed: int
    reused: int
    ids: tuple[int, ...]  # before the cursor
    uncoloured: int  # tokens at the head of the prompt whose probabilities were not computed
    saved: bool
