"""The cells of the lens: for each token, how each layer ranked it, and what that layer would have said instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pellucid.glass.apply import at_positions
from pellucid.report.page_data import LensCell

if TYPE_CHECKING:
    from pellucid.glass.intervene import Intervention
    from pellucid.llm import LLM
    from pellucid.report.token_view import TokenReader


def lens_of(
    llm: LLM,
    ids: Sequence[int],
    positions: Sequence[int],
    reader: TokenReader,
    interventions: Sequence[Intervention],
) -> tuple[tuple[str, ...], list[tuple[LensCell, ...]]]:
    """The names of the layers, first to last, and for each of `positions` (ascending, from 1) the cells of the token
    that stands there, read from the row before it. interventions: by absolute positions."""
    if not positions:
        return (), []
    lens = llm.lens(
        list(ids[: positions[-1]]),
        positions=[p - 1 for p in positions],
        k=1,
        tokens=[ids[p] for p in positions],
        interventions=at_positions(interventions, 0, positions[-1]),
    )
    cells = [
        tuple(
            LensCell(
                int(lens.ranks[row, layer]),
                float(lens.logprobs[row, layer]),
                reader.text(int(lens.top_ids[row, layer, 0])),
                float(lens.top_logprobs[row, layer, 0]),
            )
            for layer in range(len(lens.layers))
        )
        for row in range(len(positions))
    ]
    return tuple(str(name) for name in lens.layers), cells
