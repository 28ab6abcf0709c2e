"""A result in memory as the branch of a run."""

from __future__ import annotations

from pellucid.errors import PellucidError, UsageError
from pellucid.glass.intervention_file import interventions_to_data
from pellucid.glass.run import Plan, RunBranch, RunDrop, RunToken
from pellucid.outputs import GenerationResult
from pellucid.sampling.params import SamplingParams
from pellucid.settings import Settings


def check_result(result: GenerationResult, settings: Settings) -> None:
    """settings: of the LLM that is asked. UsageError: the result was made with another model, KV format or format of
    activations, so its logits cannot be computed again here."""
    for name, spoken in (
        ("model", "model"),
        ("kv_format", "KV format"),
        ("activations", "format of activations"),
    ):
        then, now = result.settings[name].value, settings[name].value
        if then != now:
            raise UsageError(
                f"this result is of another {spoken}: {str(then)[:60]!a}, here {str(now)[:60]!a}; "
                "ask the LLM that made it"
            )


def branch_of_result(result: GenerationResult, sample: int = 0) -> RunBranch:
    """One sample of a result, without what only a run file has (digests, times of each step). UsageError: no such
    sample, or parameters with Python functions, which a result does not hold."""
    if not 0 <= sample < len(result.outputs):
        raise UsageError(f"sample: expected 0 to {len(result.outputs) - 1}, got {sample}")
    output, settings = result.outputs[sample], result.settings
    names = [field.name for field in SamplingParams.fields()]
    try:
        params = SamplingParams(**{name: settings[name].value for name in names if name in settings})
    except PellucidError as error:
        raise UsageError(f"the parameters of this result cannot be built again: {error}") from None
    eos_ids = () if params.ignore_eos else settings["eos_ids"].value
    stop_ids = tuple(sorted({*eos_ids, *params.stop_token_ids}))
    prompt_ids = list(result.prompt_token_ids)
    for drop in output.drops:
        if drop.after == 0:  # of a prompt that was too long
            del prompt_ids[drop.start : drop.start + drop.count]
    branch = RunBranch(
        index=sample,
        request=0,
        prompt=result.prompt,
        prompt_ids=prompt_ids,
        plans=[Plan(params.to_dict(), params.seed or 0, stop_ids, settings)],
        sample_index=output.index,
        finish_reason=output.finish_reason,
        stop_match=output.stop_match,
        ended=output.finish_reason is not None,
        timings={"tokenize": result.timings.tokenize, "total": result.timings.total},
    )
    branch.interventions, branch.arrays = interventions_to_data(result.interventions)
    branch.drops = [RunDrop(drop.after, drop.start, drop.count) for drop in output.drops if drop.after]
    dropped = {drop.after: drop.count for drop in branch.drops}
    position = len(prompt_ids)
    for index, token_id in enumerate(output.token_ids):
        position -= dropped.get(index, 0)
        branch.tokens.append(RunToken(position, token_id))
        position += 1
    return branch
