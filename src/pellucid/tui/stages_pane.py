"""What made the choice: what each stage did, the noise, the runner-up."""

from __future__ import annotations

from math import exp

from rich.text import Text

from pellucid.glass.run import DRAWN, FORCED, GIVEN, KEPT
from pellucid.sampling.record import ChoiceRecord, StageRecord
from pellucid.tui.style import FAINT, WARNING, percent, said, visible
from pellucid.tui.view import Look, View

KINDS = {FORCED: "forced by hand", GIVEN: "given by hand", KEPT: "kept from before", DRAWN: "drawn"}


def stages_lines(view: View, width: int, height: int) -> list[Text]:
    """At most `height` lines of at most `width` cells."""
    look = view.look
    if look is None:
        return []
    lines = [Text(view.settings, FAINT)]
    if look.choice is None:
        lines += said(look.no_choice, width, height, WARNING if look.kind is None else "")
        return [_cut(line, width) for line in lines[:height]]
    top = look.rows[0].token_id
    for each in look.choice.stages:
        lines.append(_stage(each, look, top))
        top = each.top
    if not look.choice.stages:
        lines.append(Text("no stage acts", FAINT))
    return [_cut(line, width) for line in _fitting(lines, _choice(look, look.choice), height)]


def _fitting(before: list[Text], choice: list[Text], height: int) -> list[Text]:
    """The choice from its first line on, and above it as much as there is room for; what is left out is counted."""
    if len(before) + len(choice) <= height or height < 2:
        return (before + choice if len(before) + len(choice) <= height else choice)[:height]
    room = max(0, height - 1 - len(choice))
    hidden = len(before) - room + max(0, len(choice) - (height - 1))
    more = Text(f"\u2026 {hidden} lines more: key v", FAINT)
    return [more, *(before[-room:] if room else []), *choice[: height - 1]]


def _stage(stage: StageRecord, look: Look, top: int) -> Text:
    """top: the most probable token before it."""
    text = Text(f"{stage.name:<13.13} ")
    text.append(f"{stage.left:>7,} left")
    if stage.removed:
        text.append(f" \u2212{percent(stage.removed_probability).strip()}")
    if stage.top != top:
        text.append(f" 1st {_name(look, stage.top)}")
    return text


def _choice(look: Look, choice: ChoiceRecord) -> list[Text]:
    rank = "" if choice.raw_rank == 0 else f" (rank {choice.raw_rank + 1:,})"
    lines = [Text("> ").append(f"{_name(look, choice.token_id)}", "bold").append(rank)]
    if look.stands is not None:
        drawn = look.stands.token_id == choice.token_id
        lines[0].append(" as it stands" if drawn else f"; stands {visible(look.stands.text)!r}")
        if look.kind not in (None, DRAWN) and look.kind in KINDS:
            lines[0].append(f" ({KINDS[look.kind]})")
    noisy = choice.noise != 0
    lines.append(Text("  " + _score(choice.logit, choice.noise, choice.score, noisy)))
    if noisy:
        lines.append(Text(f"  drawn with {percent(exp(min(0.0, choice.logprob))).strip()}"))
    if choice.runner_up is None:
        lines.append(Text("  no other token was left"))
    else:
        lines.append(Text(f"then {_name(look, choice.runner_up)}, {choice.margin:.3f} lower"))
        if noisy:
            score = choice.score - choice.margin
            lines.append(Text("  " + _score(choice.runner_up_logit, choice.runner_up_noise, score, noisy)))
    return lines


def _score(logit: float, noise: float, score: float, noisy: bool) -> str:
    return f"logit {logit:.3f}" + (
        f" {'+' if noise >= 0 else '−'} noise {abs(noise):.3f} = {score:.3f}" if noisy else ""
    )


def _name(look: Look, token_id: int) -> str:
    return repr(visible(look.names[token_id]))


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line
