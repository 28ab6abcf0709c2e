"""The numbers behind a page as compact JSON, for its script. Texts stand once, in a table, and are named by index.

{"texts": [...], "stages": [names], "layers": [names], "branches": [
         {"at": position of the first token, "positions": [of all, only where they do not simply count up],
          "tokens": [token, ...]}]}
    token: [text, id, kind, logprob, rank (from 1), entropy, top, choice, lens, seconds, [note, flag, ...]]; the last
    five 0, or left out at the end, where there is nothing; logprob and entropy null where they are not known
top: flat triples text, logprob, processed log-probability (null: none, "x": excluded)
choice: [noise, score, runner-up text or -1, runner-up's noise, margin or -1, number left, logprob, stages]
stages: flat sextuples name, removed, left, removed probability, moved (negative: and reordered), top's text
lens: flat quadruples rank, probability, top's text, top's probability, layer by layer; in ten-thousandths
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pellucid.report.html import show
from pellucid.report.page_data import BranchView, Candidate, LensCell, Report, TokenView
from pellucid.sampling.record import ChoiceRecord

_ALWAYS = 6  # fields of a token that are always there


class Texts:
    """Each text once; its number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def page_json(report: Report) -> dict[str, Any]:
    """What the page's data block holds."""
    texts, stages = Texts(), Texts()
    branches = [_branch(branch, texts, stages) for branch in report.branches]
    return {
        "texts": [show(text) for text in texts.numbers],
        "stages": [show(name) for name in stages.numbers],
        "layers": [show(name) for name in report.layer_names],
        "branches": branches,
    }


def _branch(branch: BranchView, texts: Texts, stages: Texts) -> dict[str, Any]:
    positions = [token.position for token in branch.tokens]
    first = positions[0] if positions else branch.forked_at
    found: dict[str, Any] = {"at": first, "tokens": [_token(token, texts, stages) for token in branch.tokens]}
    if positions != list(range(first, first + len(positions))):
        found["positions"] = positions
    return found


def _token(token: TokenView, texts: Texts, stages: Texts) -> list[Any]:
    fields: list[Any] = [
        texts(token.text),
        token.token_id,
        texts(token.kind),
        _number(token.logprob, "x"),
        0 if token.rank is None else token.rank + 1,
        _number(token.entropy, None),
        _top(token.top, texts) or 0,
        0 if token.choice is None else _choice(token, token.choice, texts, stages),
        _lens(token.layers, texts) or 0,
        0 if token.seconds is None else round(token.seconds, 6),
        [texts(token.note), *map(texts, token.flags)] if token.note or token.flags else 0,
    ]
    while len(fields) > _ALWAYS and fields[-1] == 0:
        fields.pop()
    return fields


def _top(top: Iterable[Candidate], texts: Texts) -> list[Any]:
    found: list[Any] = []
    for each in top:
        found += [texts(each.text), _number(each.logprob, "x"), _number(each.processed, "x")]
    return found


def _choice(token: TokenView, choice: ChoiceRecord, texts: Texts, stages: Texts) -> list[Any]:
    return [
        _short(choice.noise),
        _short(choice.score),
        -1 if token.runner_up is None else texts(token.runner_up),
        _short(choice.runner_up_noise),
        _number(choice.margin, -1),
        choice.num_left,
        _number(choice.logprob, "x"),
        _stages(token, choice, texts, stages),
    ]


def _stages(token: TokenView, choice: ChoiceRecord, texts: Texts, names: Texts) -> list[Any]:
    found: list[Any] = []
    for stage, top in zip(choice.stages, token.stage_tops, strict=True):
        moved = -stage.moved if stage.reordered else stage.moved
        found += [
            names(stage.name),
            stage.removed,
            stage.left,
            _short(stage.removed_probability),
            moved,
            texts(top),
        ]
    return found


def _lens(layers: Iterable[LensCell], texts: Texts) -> list[Any]:
    found: list[Any] = []
    for cell in layers:
        found += [cell.rank, _chance(cell.logprob), texts(cell.top), _chance(cell.top_logprob)]
    return found


def _chance(logprob: float) -> int:
    """A probability in ten-thousandths."""
    return round(10_000 * math.exp(logprob))


def _short(value: float) -> float | int:
    """Five significant digits; whole numbers as such. JSON has no infinity: it becomes the largest float."""
    if not math.isfinite(value):
        return math.copysign(1e308, value) if value == value else 0
    short = float(f"{value:.5g}")
    return int(short) if short == int(short) and abs(short) < 1e9 else short


def _number(value: float | None, infinite: Any) -> Any:
    """None stays; what is infinite becomes `infinite`."""
    if value is None:
        return None
    return _short(value) if math.isfinite(value) else infinite
