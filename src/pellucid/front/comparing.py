"""A and B: one prompt without and with interventions, and what they change in each distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.front.looking import Looking, looking_of
from pellucid.front.views import hold
from pellucid.sampling.distribution import Distribution

if TYPE_CHECKING:
    from pellucid.engine.held import Held
    from pellucid.glass.intervene import Intervention
    from pellucid.llm import LLM
    from pellucid.outputs import Alternative, GenerationResult
    from pellucid.sampling.params import SamplingParams
    from pellucid.types import Float32

ROWS = 16  # positions of logits that are there at a time


@dataclass(frozen=True)
class ComparedStep:
    """One place of A's output, after the same tokens in both: the token that A has there, its log-probability under
    the model without and with the interventions, the most probable tokens of both, and how far the distributions are
    apart: divergence is KL(without || with) in nats."""

    position: int
    token_id: int
    text: str
    logprob_without: float
    logprob_with: float
    top_without: tuple[Alternative, ...]
    top_with: tuple[Alternative, ...]
    divergence: float

    def __repr__(self) -> str:
        return (
            f"ComparedStep({self.position}, {self.text!r}, logprob {self.logprob_without:.4f} without, "
            f"{self.logprob_with:.4f} with, divergence {self.divergence:.4f})"
        )


@dataclass(frozen=True)
class Comparison:
    """without, with_: what was generated. parts_at: the first place of the outputs where they differ, None: nowhere.
    steps: along the tokens of `without`."""

    without: GenerationResult
    with_: GenerationResult
    parts_at: int | None
    steps: tuple[ComparedStep, ...]

    def __repr__(self) -> str:
        where = "the same text" if self.parts_at is None else f"they part at token {self.parts_at}"
        return f"Comparison({self.without.text[:60]!r}, with {self.with_.text[:60]!r}; {where})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        from dataclasses import asdict

        return {
            "without": self.without.to_dict(),
            "with": self.with_.to_dict(),
            "parts_at": self.parts_at,
            "steps": [asdict(step) for step in self.steps],
        }


def compare(
    llm: LLM,
    prompt: str | Sequence[int],
    interventions: Sequence[Intervention],
    params: SamplingParams | None,
    *,
    top: int,
    parse_special: bool,
    overrides: dict[str, Any],
) -> Comparison:
    """`LLM.ab`."""
    (look,) = looking_of(None, interventions, 1)
    if look is None:
        raise UsageError("ab: expected at least one intervention")
    samples = llm._resolve(params, overrides, False)[0].n
    if samples != 1:
        raise UsageError(f"ab compares one sample with one, got n={samples}; leave n out")
    ids = llm._given_ids(prompt, parse_special)
    llm._prepare(
        ids, params, False, False, overrides, looking=look
    )  # for its errors, before anything is computed
    a = llm.generate(ids, params, **overrides)
    overrides = {**overrides, "seed": a.settings["seed"].value}  # the same noise in both
    b = llm.generate(ids, params, interventions=interventions, **overrides)
    parts = [i for i, (x, y) in enumerate(zip(a.token_ids, b.token_ids, strict=False)) if x != y]
    shorter = min(len(a.token_ids), len(b.token_ids))
    parts_at = parts[0] if parts else shorter if len(a.token_ids) != len(b.token_ids) else None
    return Comparison(a, b, parts_at, _steps(llm, ids, a.token_ids, look, top))


def _steps(llm: LLM, ids: list[int], output: list[int], look: Looking, top: int) -> tuple[ComparedStep, ...]:
    driver, held = llm._open_driver(), (hold(llm, ids, None)[0], hold(llm, ids, look)[0])
    steps: list[ComparedStep] = []
    try:
        done = 0
        while done < len(output):
            for each in held:
                each.first_logit = len(ids) + done - 1
            rows = driver.evaluate(held)
            count = min(len(rows[0]), len(output) - done)
            for i in range(count):
                steps.append(_step(llm, len(ids) + done + i, output[done + i], rows[0][i], rows[1][i], top))
            done += count
            _append(held, output[len(held[0]) - len(ids) : len(held[0]) - len(ids) + ROWS])
    finally:
        for each in held:
            each.close()
    return tuple(steps)


def _append(held: tuple[Held, Held], ids: list[int]) -> None:
    if ids:
        for each in held:
            each.append(ids)


def _step(llm: LLM, position: int, token: int, without: Float32, with_: Float32, top: int) -> ComparedStep:
    from pellucid.outputs import Alternative

    one, other = Distribution(without), Distribution(with_)
    p = without.astype(np.float64) - one.log_normalizer
    q = with_.astype(np.float64) - other.log_normalizer
    divergence = max(0.0, float((np.exp(p) * (p - q)).sum()))

    def best(found: Distribution) -> tuple[Alternative, ...]:
        text = llm.tokenizer.token_text
        return tuple(Alternative(i, text(i), found.logprob(i)) for i in found.top(top))

    return ComparedStep(
        position,
        token,
        llm.tokenizer.token_text(token),
        one.logprob(token),
        other.logprob(token),
        best(one),
        best(other),
        divergence,
    )
