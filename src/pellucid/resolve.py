"""Which sampling parameters a request runs with, and where each of them came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from pellucid.errors import UsageError
from pellucid.sampling.limits import check_overflow, check_switches
from pellucid.sampling.order import preset_of
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.seed import fresh_seed
from pellucid.settings import DEFAULT, DRAWN, GENERATION_CONFIG, NO_EFFECT, Setting

# What `model_defaults` applies: the name in generation_config.json (or of general.sampling.* in a GGUF file) -> the
# field of SamplingParams. Of chance: transformers heeds these with do_sample only.
_OF_CHANCE = {
    name: name
    for name in (
        *("temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        *("xtc_probability", "xtc_threshold", "mirostat", "mirostat_tau", "mirostat_eta"),
    )
}
_ALWAYS = {
    "repetition_penalty": "repetition_penalty",
    "penalty_last_n": "penalty_last_n",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "encoder_repetition_penalty": "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size": "encoder_no_repeat_ngram_size",
    "sequence_bias": "sequence_bias",
    "bad_words_ids": "bad_words_ids",
    "min_new_tokens": "min_tokens",
    "suppress_tokens": "banned_ids",
    "begin_suppress_tokens": "begin_suppress_tokens",
    "forced_bos_token_id": "forced_bos_ids",
}
# Values that mean "off" where pellucid has another word for it.
_OFF: dict[str, tuple[Any, ...]] = {"epsilon_cutoff": (1.0,), "eta_cutoff": (1.0,), "penalty_last_n": (-1, 0)}
# Recommendations of what is not a sampler, or of another model's kind, with the values at which they do nothing.
_NOT_APPLIED: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0, 0.0),
    "forced_eos_token_id": (),
    "guidance_scale": (1, 1.0),
    "diversity_penalty": (0, 0.0),
    "watermarking_config": (),
    "sequence": ("",),  # of general.sampling: an order of stages in llama.cpp's letters
}


def resolve_sampling(
    params: SamplingParams | None,
    overrides: Mapping[str, Any],
    recommended: Mapping[str, Any] | None,
    container: str,
    origin: str,
) -> tuple[SamplingParams, list[Setting]]:
    """(the parameters, each with its origin). `overrides` win over `params`, these over the model author's
    `recommended` values (None: not asked for), which win over pellucid's defaults. A field of `params` that
    stands at its default counts as not said; say it as a keyword to hold it against `recommended`.

    A seed that nobody gave, where chance decides, is drawn here, so that the result can name it.
    UsageError: a field that does not exist, a value that is out of its range, a field that does nothing without one
    that nobody gave.
    """
    if params is not None and not isinstance(params, SamplingParams):
        raise UsageError(
            f"params: expected SamplingParams, got {type(params).__name__}; give fields as keywords"
        )
    given = (params.said() if params is not None else {}) | dict(overrides)
    advised = read_recommended(recommended, container) if recommended is not None else {}
    chosen = SamplingParams(**{**advised, **given})
    origins = dict.fromkeys(advised, GENERATION_CONFIG) | dict.fromkeys(given, origin)
    check_overflow(chosen)
    check_switches(given)
    idle = chosen.without_effect()
    if chosen.seed is None and not chosen.greedy:
        chosen = chosen.replace(seed=fresh_seed())
        origins["seed"] = DRAWN
    origins = dict.fromkeys(preset_of(chosen.order).rules, f"order {chosen.order[0]}") | origins
    settings = [
        Setting(name, value, origins.get(name, DEFAULT), NO_EFFECT + idle[name] if name in idle else "")
        for name, value in chosen.to_dict().items()
    ]
    return chosen, settings


def read_recommended(defaults: Mapping[str, Any], container: str) -> dict[str, Any]:
    """The SamplingParams fields that a model's author recommends, from generation_config.json, or from
    general.sampling.* of a GGUF file under the same names.

    generation_config.json asks for chance only with do_sample true (transformers' rule); GGUF has no such
    switch.
    Warns of each recommendation that pellucid cannot follow.
    """
    by_chance = container == "gguf" or defaults.get("do_sample") is True
    names = _OF_CHANCE | _ALWAYS if by_chance else _ALWAYS
    found = {
        field: [defaults[name]] if name == "forced_bos_token_id" else defaults[name]
        for name, field in names.items()
        if defaults.get(name) is not None and defaults[name] not in _OFF.get(name, ())
    }
    if by_chance and container != "gguf":
        found.setdefault("temperature", 1.0)
    decay = defaults.get("exponential_decay_length_penalty")
    if isinstance(decay, list | tuple) and len(decay) == 2:
        found |= {"exponential_decay_start": decay[0], "exponential_decay_factor": decay[1]}
    skipped = [name for name, neutral in _NOT_APPLIED.items() if _asks(defaults.get(name), neutral)]
    if skipped:
        warnings.warn(f"the model's author asks for {', '.join(skipped)}: not applied", stacklevel=2)
    return found


def _asks(value: Any, neutral: tuple[Any, ...]) -> bool:
    return value is not None and value is not False and value not in neutral
