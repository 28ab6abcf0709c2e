"""The strategies of `pellucid search` besides the exact one: their options, and how their results are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _json

if TYPE_CHECKING:
    from pellucid.llm import LLM

Line = tuple[float, str, str]  # value, finish reason, text
Shown = tuple[Any, list[Line], list[str]]  # the result, its lines, notes for stderr


@dataclass(frozen=True)
class Strategy:
    """options: those of the command that it takes, besides the prompt, the sampling ones and --json."""

    run: Callable[[LLM, str, dict[str, Any]], Shown]
    options: tuple[str, ...]


def output_line(value: float, reason: str, text: str) -> str:
    return f"{value:>10.4f}  {reason:<6}  {_console.visible(text)!r}"


def work_of(result: Any) -> str:
    """What it cost, of a result with `work` and `seconds`."""
    work = result.work
    return f"{work.rows} rows computed, {work.reused} reused, {work.passes} passes, {result.seconds:.2f} s"


def _beam(llm: LLM, prompt: str, options: dict[str, Any], **fixed: Any) -> Shown:
    stopping = options.pop("early_stopping", None)
    named: dict[str, Any] = {"yes": True, "no": False, "never": "never"}
    if stopping is not None:
        fixed["early_stopping"] = named[stopping]
    result = llm.beam_search(prompt, **fixed, **options)
    lines = [(each.value, each.finish_reason, each.text) for each in result.outputs]
    return result, lines, [work_of(result)]


def _best_first(llm: LLM, prompt: str, options: dict[str, Any]) -> Shown:
    options.setdefault("early_stopping", "never")
    return _beam(llm, prompt, options, best_first=True)


def _diverse(llm: LLM, prompt: str, options: dict[str, Any]) -> Shown:
    options.setdefault("num_groups", 2)
    return _beam(llm, prompt, options)


def _stochastic(llm: LLM, prompt: str, options: dict[str, Any]) -> Shown:
    result = llm.stochastic_beam_search(prompt, **options)
    lines = [(each.logprob, each.finish_reason, each.text) for each in result.outputs]
    weights = ", ".join(f"{each.weight:.4g}" for each in result.outputs)
    return result, lines, [f"seed {result.seed}; weights {weights}", work_of(result)]


def _contrastive(llm: LLM, prompt: str, options: dict[str, Any]) -> Shown:
    result: Any = llm.contrastive_search(prompt, **options)
    mean = sum(max(step.scores) for step in result.steps) / len(result.steps)
    return (
        result,
        [(mean, result.finish_reason, result.text)],
        ["value: mean score of a token", work_of(result)],
    )


def _reranked(result: Any) -> Shown:
    lines = [(each.score, each.sample.finish_reason, each.sample.text) for each in result.ranked]
    return (
        result,
        lines,
        [f"by {result.by}; seed {result.result.settings['seed'].value}", result.result.summary()],
    )


def _best_of(llm: LLM, prompt: str, options: dict[str, Any]) -> Shown:
    return _reranked(llm.best_of(prompt, **options))


def _mbr(llm: LLM, prompt: str, options: dict[str, Any]) -> Shown:
    return _reranked(llm.minimum_bayes_risk(prompt, **options))


def _consistency(llm: LLM, prompt: str, options: dict[str, Any]) -> Shown:
    if "extract" not in options:
        raise click.UsageError(
            "--strategy self-consistency needs --extract, a regular expression for the answer"
        )
    found = llm.self_consistency(prompt, **options)
    lines = [(party.weight, f"{len(party.samples)}x", str(party.answer)) for party in found.parties]
    notes = [
        f"{found.share:.0%} of the votes; {found.num_abstained} samples without an answer",
        found.result.summary(),
    ]
    return found, lines, notes


_BEAM = ("num_beams", "length_penalty", "early_stopping", "min_tokens")
STRATEGIES = {
    "beam": Strategy(_beam, _BEAM),
    "best-first": Strategy(_best_first, _BEAM),
    "diverse": Strategy(_diverse, (*_BEAM, "num_groups", "diversity")),
    "stochastic": Strategy(_stochastic, ("n", "min_tokens")),
    "contrastive": Strategy(_contrastive, ("alpha", "k", "min_tokens")),
    "best-of": Strategy(_best_of, ("n", "by", "min_tokens", "logprobs")),
    "self-consistency": Strategy(_consistency, ("n", "extract", "weighted", "min_tokens", "logprobs")),
    "minimum-bayes-risk": Strategy(_mbr, ("n", "utility", "min_tokens", "logprobs")),
}
EXACT = (
    *("n", "objective", "min_tokens", "must_end", "max_nodes", "max_seconds", "max_memory"),
    *("num_beams", "batch_size", "verify"),
)


def check_options(name: str, given: dict[str, Any], flags: dict[str, str]) -> None:
    """click.UsageError: an option was given that the strategy does not have. flags: of each option."""
    taken = EXACT if name == "exact" else STRATEGIES[name].options
    known = {option for strategy in STRATEGIES.values() for option in strategy.options} | set(EXACT)
    for option in given:
        if option in known and option not in taken:
            mine = ", ".join(flags[each] for each in taken)
            raise click.UsageError(
                f"{flags[option]} has no meaning with --strategy {name}, which takes {mine}"
            )


def run(llm: LLM, name: str, prompt: str, options: dict[str, Any], as_json: bool) -> None:
    """options: what was given, sampling parameters among them."""
    result, lines, notes = STRATEGIES[name].run(llm, prompt, options)
    if as_json:
        _json.write(result.to_dict())
        return
    for value, reason, text in lines:
        click.echo(output_line(value, reason, text))
    for note in notes:
        _console.note(note)
