"""Which sampling parameters a request runs with, and where each of them came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from pellucid.errors import UsageError
from pellucid.sampling.params import SamplingParams
from pellucid.sampling.seed import fresh_seed
from pellucid.settings import DEFAULT, DRAWN, GENERATION_CONFIG, NO_EFFECT, Setting

# What `model_defaults` applies, as generation_config.json and SamplingParams both call it.
_RECOMMENDED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# Recommendations of kinds of choosing that pellucid does not have, with the values at which they do nothing.
_NOT_APPLIED: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0, 0.0),
    "typical_p": (1, 1.0),
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
    "no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1, 1.0),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1, 1.0),
    "diversity_penalty": (0, 0.0),
    "exponential_decay_length_penalty": (),
    "sequence_bias": ({},),
    "xtc_probability": (0, 0.0),
    "mirostat": (0,),
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
    UsageError: a field that does not exist, or a value that is out of its range.
    """
    if params is not None and not isinstance(params, SamplingParams):
        raise UsageError(
            f"params: expected SamplingParams, got {type(params).__name__}; give fields as keywords"
        )
    given = (params.non_defaults() if params is not None else {}) | dict(overrides)
    advised = read_recommended(recommended, container) if recommended is not None else {}
    chosen = SamplingParams(**{**advised, **given})
    origins = dict.fromkeys(advised, GENERATION_CONFIG) | dict.fromkeys(given, origin)
    idle = set(chosen.without_effect())
    if chosen.seed is None and not chosen.greedy:
        chosen = chosen.replace(seed=fresh_seed())
        origins["seed"] = DRAWN
    settings = [
        Setting(name, value, origins.get(name, DEFAULT), NO_EFFECT if name in idle else "")
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
    found = {name: defaults[name] for name in _RECOMMENDED if defaults.get(name) is not None}
    if container != "gguf":
        if defaults.get("do_sample") is True:
            found.setdefault("temperature", 1.0)
        else:
            found = {name: value for name, value in found.items() if name == "repetition_penalty"}
    skipped = [name for name, neutral in _NOT_APPLIED.items() if _asks(defaults.get(name), neutral)]
    if skipped:
        warnings.warn(f"the model's author asks for {', '.join(skipped)}: not applied", stacklevel=2)
    return found


def _asks(value: Any, neutral: tuple[Any, ...]) -> bool:
    return value is not None and value is not False and value not in neutral
