"""`llm.best_of`, `llm.self_consistency` and `llm.minimum_bayes_risk`: many samples, and one made of them or chosen."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pellucid.decoding.minimum_bayes_risk import expected_utilities
from pellucid.decoding.utilities import UTILITIES, Utility
from pellucid.decoding.vote import Party, count_votes
from pellucid.errors import PellucidError, UsageError
from pellucid.outputs import GenerationResult, Sample
from pellucid.prompts import check_count, is_messages, split_prompts
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.values import as_float, name_of

if TYPE_CHECKING:
    from pellucid.llm import LLM

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
Scorer = Callable[[Sample], float]
Extractor = Callable[[str], Hashable | None]
Compare = Callable[[str, str], float]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A sample and what it was ranked by."""

    sample: Sample
    score: float


@dataclass(frozen=True)
class Reranked:
    """ranked: all samples, the highest score first, of equals the one drawn first. by: what the score is. result: the
    generation that the samples come from."""

    ranked: tuple[Ranked, ...]
    by: str
    result: GenerationResult = field(repr=False)

    @property
    def best(self) -> Sample:
        return self.ranked[0].sample

    @property
    def text(self) -> str:
        return self.best.text

    def to_dict(self) -> dict[str, Any]:
        """In plain types."""
        ranked = [{"score": each.score, **each.sample.to_dict()} for each in self.ranked]
        return {"by": self.by, "ranked": ranked, "result": self.result.to_dict()}


@dataclass(frozen=True)
class Consensus:
    """answer: that of the heaviest party; None: no sample had an answer. text: of the winning party's sample that the
    model finds most probable per token. parties: all answers with their votes, the heaviest first. num_abstained:
    samples without an answer."""

    answer: Hashable | None
    text: str
    parties: tuple[Party, ...]
    num_abstained: int
    result: GenerationResult = field(repr=False)

    @property
    def share(self) -> float:
        """Of the winner, among the votes cast, by weight; 0 where there are none."""
        total = sum(party.weight for party in self.parties)
        return self.parties[0].weight / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """In plain types; answers as they were extracted."""
        parties = [
            {"answer": party.answer, "weight": party.weight, "samples": list(party.samples)}
            for party in self.parties
        ]
        return {
            "answer": self.answer, "text": self.text, "share": self.share, "parties": parties,
            "num_abstained": self.num_abstained, "result": self.result.to_dict(),
        }  # fmt: skip


def best_of(
    llm: LLM,
    prompt: Prompt,
    n: int,
    by: str | Scorer,
    params: SamplingParams | None,
    arguments: dict[str, Any],
) -> Reranked:
    """`LLM.best_of`."""
    if by not in ("sum", "mean") and not callable(by):
        raise UsageError(f"by: expected 'sum', 'mean' or a function of a Sample, got {by!r:.40}")
    result = draw(llm, prompt, n, params, arguments)
    if callable(by):
        name = name_of(by)
        scores = [_number(f"by ({name})", by(sample)) for sample in result.outputs]
    else:
        name = by
        scores = [_logprob(sample, per_token=by == "mean") for sample in result.outputs]
    return Reranked(_ranked(result, scores), name, result)


def self_consistency(
    llm: LLM,
    prompt: Prompt,
    n: int,
    extract: str | Extractor,
    weighted: bool,
    params: SamplingParams | None,
    arguments: dict[str, Any],
) -> Consensus:
    """`LLM.self_consistency`."""
    answer_of = _extractor(extract)
    result = draw(llm, prompt, n, params, arguments)
    answers = [answer_of(sample.text) for sample in result.outputs]
    means = [_logprob(sample, per_token=True) for sample in result.outputs]
    weights = [math.exp(mean) if weighted else 1.0 for mean in means]
    parties = count_votes(answers, weights)
    text = ""
    if parties:
        text = result.outputs[max(parties[0].samples, key=lambda i: means[i])].text
    winner = parties[0].answer if parties else None
    return Consensus(winner, text, parties, sum(answer is None for answer in answers), result)


def minimum_bayes_risk(
    llm: LLM,
    prompt: Prompt,
    n: int,
    utility: str | Compare,
    params: SamplingParams | None,
    arguments: dict[str, Any],
) -> Reranked:
    """`LLM.minimum_bayes_risk`."""
    if callable(utility):
        name, function = name_of(utility), utility
        chosen = Utility(str, lambda a, b: _number(f"utility ({name})", function(a, b)))
    elif isinstance(utility, str) and utility in UTILITIES:
        name, chosen = utility, UTILITIES[utility]
    else:
        raise UsageError(
            f"utility: expected {', '.join(UTILITIES)} or a function (text, reference) -> number, "
            f"got {utility!r:.40}"
        )
    result = draw(llm, prompt, n, params, arguments)
    scores = expected_utilities([sample.text for sample in result.outputs], chosen)
    return Reranked(_ranked(result, scores), name, result)


def draw(
    llm: LLM, prompt: Prompt, n: int, params: SamplingParams | None, arguments: dict[str, Any]
) -> GenerationResult:
    """n samples of one prompt, computed once, with the log-probabilities of their tokens. UsageError: temperature 0."""
    count = check_count("n", n, 1)
    wanted = {**arguments, "n": count}
    if wanted.get("logprobs") is None:
        wanted["logprobs"] = 0 if params is None or params.logprobs is None else params.logprobs
    defaults = bool(arguments.get("model_defaults"))
    settings = llm.effective_settings(
        params, model_defaults=defaults, **{k: v for k, v in wanted.items() if k in _sampling_names()}
    )
    if count > 1 and settings["temperature"].value == 0:
        raise UsageError(f"{count} samples at temperature 0 are all the same; give a temperature such as 0.8")
    if is_messages(prompt):
        return llm.chat(prompt, params, **wanted)  # type: ignore[arg-type]
    prompts, several = split_prompts(prompt)
    if several:
        raise UsageError("expected one prompt, got a list of them; call it for each")
    return llm.generate(prompts[0], params, **wanted)


def _sampling_names() -> set[str]:
    return {each.name for each in SamplingParams.fields()}


def _logprob(sample: Sample, *, per_token: bool) -> float:
    """Under the model's own distribution, an end token included."""
    found = [token.logprob for token in sample.logprobs or ()]
    return math.fsum(found) / (max(len(found), 1) if per_token else 1)


def _ranked(result: GenerationResult, scores: Sequence[float]) -> tuple[Ranked, ...]:
    pairs = [Ranked(sample, score) for sample, score in zip(result.outputs, scores, strict=True)]
    return tuple(sorted(pairs, key=lambda each: -each.score))


def _number(what: str, value: Any) -> float:
    number = as_float(value)
    if number is None:
        raise PellucidError(f"{what}: expected a finite number, got {value!r:.40}")
    return number


def _hashable(answer: Any) -> Hashable | None:
    if not isinstance(answer, Hashable):
        raise PellucidError(f"extract: expected an answer that can be hashed, or None, got {answer!r:.40}")
    return answer


def _extractor(extract: str | Extractor) -> Extractor:
    if callable(extract):
        return lambda text: _hashable(extract(text))
    try:
        pattern = re.compile(extract)
    except (re.error, TypeError) as error:
        raise UsageError(
            f"extract: expected a regular expression or a function of a text, got {extract!r:.40}: {error}"
        ) from None

    def last_match(text: str) -> str | None:
        """The first group of the last match (all of it, where there is no group), without white space around it."""
        matches = list(pattern.finditer(text))
        if not matches:
            return None
        found = matches[-1]
        kept = found[1] if pattern.groups else found[0]
        return kept.strip() if kept is not None else None

    return last_match
