"""`llm.search`: the most probable outputs, with a proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import exp, inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pellucid.decoding.beam import BeamRules, BeamSearch
from pellucid.decoding.exact import Bounds, ExactSearch
from pellucid.decoding.goal import Found, Goal
from pellucid.errors import UsageError
from pellucid.prompts import check_count, check_flag
from pellucid.sampling.values import as_float
from pellucid.search.certificate import Certificate
from pellucid.search.space import space_of
from pellucid.search.tree import Constraint, HeldTree, Work

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams

__all__ = ["Bounds", "SearchOutput", "SearchResult", "output_of", "search"]

OBJECTIVES = ("logprob", "per_token", "per_length")


@dataclass(frozen=True, slots=True)
class SearchOutput:
    """token_ids: an end token included. logprob: sum of the log-probabilities, natural, float64. value: what was
    maximised. finish_reason: "eos" (an end token) or "length" (cut at max_tokens)."""

    token_ids: tuple[int, ...]
    text: str
    logprob: float
    value: float
    finish_reason: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    outputs: the best first; per_length: of every length. certified: nothing better exists, and `certificate` proves it.
    ended_by: "proof", "max_nodes", "max_seconds" or "max_memory". upper_bound: no output outside `outputs` has a higher
    value. gap: how far, in nats (per token, where that is maximised), the best of them may be from the best there is; 0
    when certified. greedy, beam: what these return on the same prompt. greedy_error, beam_error: whether that is worse
    than the best output found. probability_empty: of ending at once. examined: the probability of all whole outputs
    seen. work: rows computed and reused.
    """

    outputs: tuple[SearchOutput, ...]
    certified: bool
    ended_by: str
    upper_bound: float
    gap: float
    nodes: int
    seconds: float
    work: Work
    greedy: SearchOutput | None
    beam: SearchOutput | None
    num_beams: int
    probability_empty: float
    examined: float
    prompt_token_ids: tuple[int, ...]
    certificate: Certificate | None

    def __repr__(self) -> str:
        best = f"{self.outputs[0].text!r}, {self.outputs[0].value:.4f}" if self.outputs else "nothing found"
        proof = "certified" if self.certified else f"{self.ended_by}, gap {self.gap:.4f} nats"
        return f"SearchResult({best}; {proof}; {self.nodes} nodes, {self.seconds:.2f} s)"

    @property
    def text(self) -> str:
        """Of the best output; "" where nothing was found."""
        return self.outputs[0].text if self.outputs else ""

    @property
    def greedy_error(self) -> bool:
        return _worse(self.greedy, self.outputs)

    @property
    def beam_error(self) -> bool:
        return _worse(self.beam, self.outputs)

    @property
    def nodes_per_second(self) -> float:
        return self.nodes / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """In plain types, without the certificate; infinities as null."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "certificate"}
        plain["outputs"] = [asdict(each) for each in self.outputs]
        plain["work"] = self.work._asdict()
        for name in ("greedy", "beam"):
            plain[name] = asdict(plain[name]) if plain[name] is not None else None
        for name in ("upper_bound", "gap"):
            plain[name] = plain[name] if abs(plain[name]) < float("inf") else None
        return plain | {"greedy_error": self.greedy_error, "beam_error": self.beam_error}


def search(
    llm: LLM,
    prompt: str | Sequence[int],
    params: SamplingParams | None,
    *,
    max_tokens: int,
    n: int,
    objective: str,
    min_tokens: int,
    must_end: bool,
    constraint: Constraint | None,
    max_nodes: int | None,
    max_seconds: float | None,
    max_memory: int | None,
    batch_size: int,
    num_beams: int,
    most_held: int,
    on_progress: Callable[[Bounds], None] | None,
    cache_salt: str | None,
    overrides: dict[str, Any],
) -> SearchResult:
    """`LLM.search`."""
    start = perf_counter()
    if objective not in OBJECTIVES:
        raise UsageError(
            f"objective: expected {', '.join(OBJECTIVES)}, got {objective!r:.40}; a sum that can rise "
            "along an output (rewards, repetition bonuses, contrastive scores) has no bound to search with"
        )
    for name, number, least in (("n", n, 1), ("batch_size", batch_size, 1), ("num_beams", num_beams, 0)):
        check_count(name, number, least)
    if max_nodes is not None:
        check_count("max_nodes", max_nodes, 1)
    if max_memory is not None:
        check_count("max_memory", max_memory, 1)
    check_flag("must_end", must_end)
    if max_seconds not in (None, inf) and not (as_float(max_seconds) or 0.0) > 0:
        raise UsageError(f"max_seconds: expected a number above 0, got {max_seconds!r:.40}")
    space, salt = space_of(llm, prompt, params, max_tokens, min_tokens, constraint, cache_salt, overrides)
    alpha = 1.0 if objective == "per_token" else 0.0
    goal = Goal(max_tokens, n=n, alpha=alpha, per_length=objective == "per_length")
    tree = HeldTree(llm, space, salt, check_count("most_held", most_held, 1))
    try:
        firsts = [_first(tree, width, max_tokens, alpha) for width in (1, num_beams)]
        for each in (each for firsts_of in firsts for each in firsts_of):
            if each.ended or not must_end:
                goal.offer(each.score, each.path, each.ended)
        root = tree.expand([()], 1)[0]
        tree.keeps_expansions = False
        exact = ExactSearch(tree, goal, batch=batch_size, must_end=must_end)
        ended_by = _advance(exact, max_nodes, max_seconds, max_memory, start, on_progress)
    finally:
        tree.close()
    bounds = exact.bounds
    found = goal.outputs()
    outputs = tuple(output_of(llm, each) for each in found)
    certified = ended_by == "proof"
    certificate = Certificate(
        space, max_tokens, alpha, must_end, goal.per_length, n,
        tuple((each.value, each.path) for each in found), tuple(exact.opened),
    )  # fmt: skip
    gap = 0.0 if certified else max(0.0, bounds.upper - found[0].value) if found else float("inf")
    return SearchResult(
        outputs=outputs,
        certified=certified,
        ended_by=ended_by,
        upper_bound=bounds.upper,
        gap=gap,
        nodes=exact.nodes,
        seconds=perf_counter() - start,
        work=tree.work,
        greedy=output_of(llm, firsts[0][0]) if firsts[0] else None,
        beam=output_of(llm, firsts[1][0]) if firsts[1] else None,
        num_beams=num_beams,
        probability_empty=sum(exp(logprob) for _, logprob in root.ends),
        examined=exact.completed_mass,
        prompt_token_ids=space.prompt_ids,
        certificate=certificate if certified else None,
    )


def _first(tree: HeldTree, width: int, max_tokens: int, alpha: float) -> list[Found]:
    """What beam search finds; greedy is a beam of one."""
    if width == 0:
        return []
    return BeamSearch(BeamRules(width, max_tokens, len(tree.space.stop_ids), alpha, "never")).run(tree)[0]


def _advance(
    exact: ExactSearch,
    max_nodes: int | None,
    max_seconds: float | None,
    max_memory: int | None,
    start: float,
    on_progress: Callable[[Bounds], None] | None,
) -> str:
    while not exact.done:
        if max_nodes is not None and exact.nodes >= max_nodes:
            return "max_nodes"
        if max_seconds is not None and perf_counter() - start >= max_seconds:
            return "max_seconds"
        if max_memory is not None and exact.num_bytes >= max_memory:
            return "max_memory"
        exact.step()
        if on_progress is not None:
            on_progress(exact.bounds)
    return "proof"


def output_of(llm: LLM, found: Found) -> SearchOutput:
    """With its text, which shows no end token."""
    shown = found.path[:-1] if found.ended else found.path
    reason = "eos" if found.ended else "length"
    return SearchOutput(found.path, llm.tokenizer.decode(list(shown)), found.score, found.value, reason)


def _worse(other: SearchOutput | None, outputs: tuple[SearchOutput, ...]) -> bool:
    return other is not None and bool(outputs) and other.value < outputs[0].value
