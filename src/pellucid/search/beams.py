"""`llm.beam_search` and `llm.stochastic_beam_search`: several outputs at once, by their probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pellucid.decoding.beam import BeamRules, BeamSearch, BeamStep, EarlyStopping
from pellucid.decoding.best_first_beam import BestFirstBeam
from pellucid.decoding.diverse_beam import DiverseBeamSearch
from pellucid.decoding.goal import Found
from pellucid.decoding.stochastic_beam import StochasticBeam
from pellucid.errors import UsageError
from pellucid.prompts import check_count, check_flag
from pellucid.sampling.seed import fresh_seed
from pellucid.sampling.values import as_float
from pellucid.search.search import SearchOutput, output_of
from pellucid.search.space import space_of
from pellucid.search.tree import Constraint, HeldTree, Work

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams


@dataclass(frozen=True, slots=True)
class BeamResult:
    """outputs: the best first; of a diverse beam the different ones of all groups, each with its best value. groups:
    the outputs of each group (one, where the beam is not diverse). steps: of each group what ran after each step;
    empty for a best-first beam, which has no steps. work: rows computed and reused."""

    outputs: tuple[SearchOutput, ...]
    groups: tuple[tuple[SearchOutput, ...], ...]
    group_steps: tuple[tuple[BeamStep, ...], ...]
    work: Work
    seconds: float
    prompt_token_ids: tuple[int, ...]

    def __repr__(self) -> str:
        return f"BeamResult({[(each.text, round(each.value, 4)) for each in self.outputs]}, {self.work})"

    @property
    def text(self) -> str:
        """Of the best output; "" where a constraint left none."""
        return self.outputs[0].text if self.outputs else ""

    @property
    def steps(self) -> tuple[BeamStep, ...]:
        """Of the first group."""
        return self.group_steps[0] if self.group_steps else ()

    def to_dict(self) -> dict[str, Any]:
        """In plain types, without the steps."""
        return {
            "outputs": [asdict(each) for each in self.outputs],
            "groups": [[asdict(each) for each in group] for group in self.groups],
            "work": self.work._asdict(),
            "seconds": self.seconds,
            "prompt_token_ids": list(self.prompt_token_ids),
        }


@dataclass(frozen=True, slots=True)
class WeightedOutput:
    """One sample of a stochastic beam. logprob: under the distribution that is sampled. perturbed: that plus its noise,
    by which it was drawn. weight: the sum of weight * f(output) over the samples is an unbiased estimate of the mean
    of f over that distribution (and their own sum one of 1)."""

    token_ids: tuple[int, ...]
    text: str
    logprob: float
    perturbed: float
    weight: float
    finish_reason: str


@dataclass(frozen=True, slots=True)
class StochasticBeamResult:
    """outputs: different ones, in the order in which sampling without replacement draws them."""

    outputs: tuple[WeightedOutput, ...]
    seed: int
    work: Work
    seconds: float
    prompt_token_ids: tuple[int, ...]

    def __repr__(self) -> str:
        found = [(each.text, round(each.logprob, 4)) for each in self.outputs]
        return f"StochasticBeamResult({found}, seed={self.seed}, {self.work})"

    @property
    def text(self) -> str:
        """Of the first: an ordinary sample."""
        return self.outputs[0].text

    def to_dict(self) -> dict[str, Any]:
        """In plain types."""
        return asdict(self) | {"work": self.work._asdict()}


def beam_search(
    llm: LLM,
    prompt: str | Sequence[int],
    params: SamplingParams | None,
    *,
    max_tokens: int,
    num_beams: int,
    num_groups: int,
    diversity: float,
    best_first: bool,
    length_penalty: float,
    early_stopping: EarlyStopping,
    min_tokens: int,
    constraint: Constraint | None,
    cache_salt: str | None,
    overrides: dict[str, Any],
) -> BeamResult:
    """`LLM.beam_search`."""
    start = perf_counter()
    penalty = _check_rules(num_beams, length_penalty, early_stopping)
    _check_groups(num_beams, num_groups, diversity, best_first)
    if best_first and (early_stopping is True or (early_stopping is False and penalty > 0)):
        raise UsageError(
            f"best_first gives the outputs of early_stopping='never', got {early_stopping!r} with "
            f"length_penalty={penalty:g}; give 'never', or leave best_first out"
        )
    space, salt = space_of(llm, prompt, params, max_tokens, min_tokens, constraint, cache_salt, overrides)
    rules = BeamRules(num_beams // num_groups, max_tokens, len(space.stop_ids), penalty, early_stopping)
    tree = HeldTree(llm, space, salt)
    tree.keeps_expansions = False
    try:
        found, steps = _run(tree, rules, num_groups, float(diversity), best_first)
    finally:
        tree.close()
    groups = tuple(tuple(output_of(llm, each) for each in group) for group in found)
    return BeamResult(
        _different(groups), groups, tuple(tuple(group) for group in steps),
        tree.work, perf_counter() - start, space.prompt_ids,
    )  # fmt: skip


def stochastic_beam_search(
    llm: LLM,
    prompt: str | Sequence[int],
    params: SamplingParams | None,
    *,
    max_tokens: int,
    n: int,
    seed: int | None,
    min_tokens: int,
    constraint: Constraint | None,
    cache_salt: str | None,
    overrides: dict[str, Any],
) -> StochasticBeamResult:
    """`LLM.stochastic_beam_search`."""
    start = perf_counter()
    check_count("n", n, 1)
    if seed is not None:
        check_count("seed", seed, -(2**63))
    chosen = fresh_seed() if seed is None else seed
    space, salt = space_of(llm, prompt, params, max_tokens, min_tokens, constraint, cache_salt, overrides)
    tree = HeldTree(llm, space, salt)
    try:
        draws = StochasticBeam(n, max_tokens, chosen).run(tree)
    finally:
        tree.close()
    outputs = []
    for draw in draws:
        plain = output_of(llm, Found(draw.logprob, draw.logprob, draw.path, draw.ended))
        outputs.append(
            WeightedOutput(
                draw.path, plain.text, draw.logprob, draw.perturbed, draw.weight, plain.finish_reason
            )
        )
    return StochasticBeamResult(tuple(outputs), chosen, tree.work, perf_counter() - start, space.prompt_ids)


def _run(
    tree: HeldTree, rules: BeamRules, num_groups: int, diversity: float, best_first: bool
) -> tuple[list[list[Found]], list[list[BeamStep]]]:
    if best_first:
        return [BestFirstBeam(rules).run(tree)], []
    if num_groups > 1:
        return DiverseBeamSearch(rules, num_groups, diversity).run(tree)
    found, steps = BeamSearch(rules).run(tree)
    return [found], [steps]


def _different(groups: tuple[tuple[SearchOutput, ...], ...]) -> tuple[SearchOutput, ...]:
    """All of all groups, each once, with its best value; equals by group, then by rank."""
    best: dict[tuple[int, ...], SearchOutput] = {}
    for output in (each for group in groups for each in group):
        if output.token_ids not in best or output.value > best[output.token_ids].value:
            best[output.token_ids] = output
    return tuple(sorted(best.values(), key=lambda each: -each.value)) if len(groups) > 1 else groups[0]


def _check_rules(num_beams: int, length_penalty: float, early_stopping: EarlyStopping) -> float:
    check_count("num_beams", num_beams, 1)
    if not (isinstance(early_stopping, bool) or early_stopping == "never"):
        raise UsageError(f"early_stopping: expected True, False or 'never', got {early_stopping!r:.40}")
    penalty = as_float(length_penalty)
    if penalty is None or not abs(penalty) < 100:
        raise UsageError(f"length_penalty: expected a number from -100 to 100, got {length_penalty!r:.40}")
    return penalty


def _check_groups(num_beams: int, num_groups: int, diversity: float, best_first: bool) -> None:
    check_count("num_groups", num_groups, 1)
    check_flag("best_first", best_first)
    if num_beams % num_groups:
        raise UsageError(
            f"num_groups: expected a divisor of num_beams={num_beams}, got {num_groups}; "
            f"{num_beams // num_groups * num_groups or num_groups} beams make {num_groups} equal groups"
        )
    penalty = as_float(diversity)
    if penalty is None or not (isfinite(penalty) and 0 <= penalty <= 1e6):
        raise UsageError(f"diversity: expected a number from 0 to 1e6, got {diversity!r:.40}")
    if penalty and num_groups == 1:
        raise UsageError(f"diversity={penalty:g} is between groups of beams; give num_groups of at least 2")
    if best_first and num_groups > 1:
        raise UsageError(f"best_first is for one beam, got num_groups={num_groups}; leave one of them out")
