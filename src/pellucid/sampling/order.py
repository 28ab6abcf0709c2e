"""In which order the stages of a choice run: a list of their names, or the rules of an engine.

A preset reproduces an engine's order, what it does with equal logits at the edge of a cut, and which tokens its
penalties look at. What that engine does not have is refused, not quietly run somewhere. Read from the sources of
transformers 5.23 (`_get_logits_processor`), vLLM V1 (`v1/sample/sampler.py`) and llama.cpp of 2026
(`common_sampler_init`, `llama-sampler.cpp`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.errors import UsageError
from pellucid.sampling.base import samplers

Order = tuple[str, ...]


@dataclass(frozen=True)
class Preset:
    """stages: the order; None: ascending by `order` of the processors. rules: values that take the place of the
    defaults. lacks: parameters of its stages that the engine does not have. greedy_skips: stages that this engine
    does not run at temperature 0, though they could change the choice."""

    stages: Order | None
    rules: Mapping[str, Any] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    greedy_skips: tuple[str, ...] = ()


_CUTS_HF = ("temperature", "top_h", "top_k", "top_p", "min_p", "typical", "epsilon", "eta")

PRESETS: dict[str, Preset] = {
    "pellucid": Preset(None),
    # Equals at the edge of top-k and typical all stay; the repetition penalty looks at prompt and output.
    "hf": Preset(
        (
            *(
                "guidance",
                "constraint",
                "sequence_bias",
                "encoder_repetition",
                "penalties",
                "no_repeat_ngram",
                "encoder_no_repeat",
            ),
            *(
                "bad_words",
                "min_tokens",
                "forced_tokens",
                "exponential_decay",
                "banned_ids",
                "begin_suppress",
            ),
            *("functions", *_CUTS_HF),
        ),
        rules={"ties": "all"},
        lacks=("presence_penalty", "frequency_penalty", "penalty_last_n", "penalty_scope"),
        greedy_skips=("typical",),
    ),
    # min_p before top_k and top_p; bad words are looked for in the output alone.
    "vllm": Preset(
        (
            *("constraint", "allowed_ids", "bad_words", "min_tokens", "logit_bias", "functions", "penalties"),
            *("temperature", "min_p", "top_k", "top_p"),
        ),
        rules={"ties": "all", "bad_words_scope": "output"},
        lacks=("penalty_last_n", "penalty_scope"),
    ),
    # The temperature comes last; all penalties look at the last 64 tokens, prompt or output; with mirostat nothing
    # but the temperature runs before it. allowed_ids and banned_ids are biases of -inf there.
    "llamacpp": Preset(
        (
            *(
                "logit_bias",
                "allowed_ids",
                "banned_ids",
                "functions",
                "penalties",
                "dry",
                "top_n_sigma",
                "top_k",
            ),
            *("typical", "top_p", "min_p", "xtc", "dynatemp", "temperature", "adaptive_p"),
        ),
        rules={
            "penalty_scope": "all",
            "penalty_last_n": 64,
            "dry_last_n": 64,
            "dry_breakers": ("\n", ":", '"', "*"),
        },
    ),
}
_LLAMACPP_MIROSTAT: Order = (
    *("logit_bias", "allowed_ids", "banned_ids", "functions", "dynatemp", "temperature", "mirostat"),
)


def preset_of(order: Order) -> Preset:
    """The preset that `order` names; for a list of stages one without rules. UsageError: an unknown name, or a
    preset among stages."""
    if len(order) == 1 and order[0] in PRESETS:
        return PRESETS[order[0]]
    for name in order:
        if name in PRESETS:
            raise UsageError(f"order: '{name}' is a whole order and stands alone, got {list(order)}")
        if name not in samplers:
            from difflib import get_close_matches

            near = get_close_matches(name, [*PRESETS, *samplers], 1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"there are: {', '.join(PRESETS)}, or stages: {', '.join(samplers)}"
            )
            raise UsageError(f"order: no stage '{name}'; {hint}")
    return Preset(order)


def stages_of(order: Order) -> Order:
    """Every stage that can run, in order."""
    preset = preset_of(order)
    if preset.stages is None:
        return tuple(sorted(samplers, key=lambda name: (samplers[name].order, name)))
    return preset.stages


def arrange(order: Order, wanted: Mapping[str, Collection[str]]) -> Order:
    """The wanted stages in order. wanted: stage -> the parameters that were set of it.

    UsageError: a parameter was set whose stage the order does not have, or which the named engine lacks.
    """
    preset, stages = preset_of(order), stages_of(order)
    if order == ("llamacpp",) and "mirostat" in wanted:
        stages = _LLAMACPP_MIROSTAT
    named = f"order '{order[0]}'" if order[0] in PRESETS else "order"
    for stage, parameters in wanted.items():
        if stage not in stages:
            with_mirostat = " with mirostat" if stages is _LLAMACPP_MIROSTAT else ""
            raise UsageError(
                f"{', '.join(parameters)}: the {named} has no stage '{stage}'{with_mirostat}; leave it unset, "
                "or give an order that has it"
            )
        missing = [name for name in parameters if name in preset.lacks]
        if missing:
            raise UsageError(
                f"{', '.join(missing)}: the {named} does not have it; leave it unset or give an order"
            )
    return tuple(stage for stage in stages if stage in wanted)
