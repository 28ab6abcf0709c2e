"""What never comes into effect: interventions, captures and forced tokens beyond the positions and steps that are
computed.

Where that is known before anything runs it is an error; where the text has ended earlier than it might have, a note of
the result.
"""

from __future__ import annotations

from collections.abc import Iterable

from pellucid.errors import UsageError
from pellucid.glass.apply import END, span_of
from pellucid.glass.intervene import ForceToken, Intervention, Patch

ForcedTokens = Iterable[tuple[int, int]]  # (step, token id), as of the parameter force_at
Kept = tuple[int, int | None]  # [start, stop) of a capture's positions; stop None: to the end


def unreached(interventions: Iterable[Intervention], num_prompt: int, num_positions: int) -> list[str]:
    """One line for each that acts at none of the positions [0, num_positions), and for each Patch with values for
    positions after them."""
    return [
        _said(each, num_prompt)
        for each in interventions
        if not isinstance(each, ForceToken) and not _reaches(each, num_prompt, num_positions)
    ]


def unforced(force_at: ForcedTokens, num_steps: int) -> list[str]:
    """One line for each forced token after the steps [0, num_steps)."""
    return [f"token {token} is forced at step {step}" for step, token in force_at if step >= num_steps]


def notes(
    interventions: Iterable[Intervention],
    force_at: ForcedTokens,
    num_prompt: int,
    num_positions: int,
    num_steps: int,
    kept: Kept | None = None,
) -> list[str]:
    """Of a text with rows at so many positions, and so many tokens of output: what never came into effect. kept: what
    was to be captured."""
    lines = unreached(interventions, num_prompt, num_positions)
    if kept is not None and kept[0] >= num_positions:
        lines.append(f"Capture keeps {_positions(*kept)}")
    lines = [f"{line}; the last one computed was {num_positions - 1}" for line in lines]
    lines += [f"{line}; there were {num_steps} steps" for line in unforced(force_at, num_steps)]
    return [f"not in effect: {line}" for line in lines]


def check_reached(
    interventions: Iterable[Intervention], num_prompt: int, num_positions: int, where: str
) -> None:
    """UsageError: one never comes into effect. where: what has so many positions."""
    for each in interventions:
        if isinstance(each, ForceToken) or _reaches(each, num_prompt, num_positions):
            continue
        start, stop = span_of(each, num_prompt)
        why = f", and {where} has positions 0 to {num_positions - 1}" if start < stop else ""
        raise UsageError(
            f"interventions: {_said(each, num_prompt)}{why}; give positions that are there, or leave it out"
        )


def check_kept(kept: Kept, num_positions: int, where: str) -> None:
    """UsageError: a capture of these positions keeps none. where: what has so many positions."""
    if kept[0] >= num_positions:
        raise UsageError(
            f"capture: it keeps {_positions(*kept)}, and {where} has positions 0 to {num_positions - 1}; give "
            "positions that are there, or leave it out"
        )


def check_forced(force_at: ForcedTokens, num_steps: int, advice: str = "raise max_tokens") -> None:
    """UsageError: a forced token never comes into effect."""
    for line in unforced(force_at, num_steps):
        raise UsageError(
            f"force_at: {line}, and there are steps 0 to {num_steps - 1}; {advice}, or leave it out"
        )


def _reaches(intervention: Intervention, num_prompt: int, num_positions: int) -> bool:
    start, stop = span_of(intervention, num_prompt)
    if isinstance(intervention, Patch):
        return stop <= num_positions
    return start < min(stop, num_positions)


def _said(intervention: Intervention, num_prompt: int) -> str:
    start, stop = span_of(intervention, num_prompt)
    where = _positions(start, None if stop == END else stop)
    if start >= stop:
        where = "no position: its positions and steps have none in common"
    layer = getattr(intervention, "layer", None)
    return f"{type(intervention).__name__} at layer {layer} acts at {where}"


def _positions(start: int, stop: int | None) -> str:
    return f"positions from {start} on" if stop is None else f"positions {start} to {stop - 1}"
