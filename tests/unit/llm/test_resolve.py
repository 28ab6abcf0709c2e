import pickle

import pytest

from pellucid.errors import UsageError
from pellucid.resolve import read_recommended, resolve_sampling
from pellucid.sampling.params import SamplingParams

ADVICE = {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": 2, "max_new_tokens": 99}


def resolve(params=None, recommended=None, container="safetensors", origin="caller", **overrides):
    chosen, settings = resolve_sampling(params, overrides, recommended, container, origin)
    return chosen, {setting.name: setting for setting in settings}


def test_without_anything_it_is_greedy_and_every_setting_is_told():
    chosen, settings = resolve()
    assert chosen == SamplingParams()
    assert chosen.temperature == 0
    assert set(settings) == {field.name for field in SamplingParams.fields()}
    assert {setting.origin for setting in settings.values()} == {"default"}


def test_keywords_win_over_params_over_advice_over_defaults():
    params = SamplingParams(top_k=7, top_p=0.5)
    chosen, settings = resolve(params, ADVICE, top_p=0.25, origin="command line")
    assert (chosen.temperature, chosen.top_k, chosen.top_p, chosen.min_p) == (0.6, 7, 0.25, 0.0)
    origins = {name: settings[name].origin for name in ("temperature", "top_k", "top_p", "min_p")}
    assert origins == {
        "temperature": "generation_config",
        "top_k": "command line",
        "top_p": "command line",
        "min_p": "default",
    }
    assert all(settings[name].value == value for name, value in chosen.to_dict().items())


def test_advice_counts_only_when_asked_for():
    assert resolve(recommended=None)[0].temperature == 0


def test_a_keyword_holds_a_default_against_the_advice():
    assert resolve(recommended=ADVICE, temperature=0.0)[0].temperature == 0


def test_do_sample_decides_in_generation_config_only():
    quiet = {"temperature": 0.6, "repetition_penalty": 1.1}
    assert read_recommended(quiet, "safetensors") == {"repetition_penalty": 1.1}
    assert read_recommended(quiet, "gguf") == quiet
    assert read_recommended({"do_sample": True}, "safetensors") == {"temperature": 1.0}


def test_advice_that_cannot_be_followed_is_told():
    with pytest.warns(UserWarning, match="num_beams, penalty_alpha: not applied"):
        read_recommended({"num_beams": 4, "penalty_alpha": 0.6, "guidance_scale": 1.0}, "safetensors")


def test_advice_under_other_names_is_followed():
    config = {
        "do_sample": True,
        "typical_p": 0.9,
        "epsilon_cutoff": 0.0,
        "suppress_tokens": [7, 3],
        "min_new_tokens": 4,
        "exponential_decay_length_penalty": [5, 1.1],
        "forced_bos_token_id": 2,
        "bad_words_ids": [[1, 2]],
    }
    params = SamplingParams(**read_recommended(config, "safetensors"))
    assert (params.typical_p, params.temperature, params.banned_ids) == (0.9, 1.0, (3, 7))
    assert (params.min_tokens, params.forced_bos_ids, params.bad_words_ids) == (4, (2,), ((1, 2),))
    assert (params.exponential_decay_start, params.exponential_decay_factor) == (5, 1.1)
    quiet = read_recommended(config | {"do_sample": False}, "safetensors")
    assert "typical_p" not in quiet and quiet["banned_ids"] == [7, 3]
    gguf = SamplingParams(
        **read_recommended({"penalty_last_n": -1, "mirostat": 2, "temperature": 0.5}, "gguf")
    )
    assert gguf.penalty_last_n is None and gguf.mirostat == 2


def test_what_an_order_brings_is_told():
    chosen, settings = resolve(order="llamacpp", temperature=1.0, repetition_penalty=1.1)
    assert (chosen.penalty_last_n, settings["penalty_last_n"].origin) == (64, "order llamacpp")
    chosen, settings = resolve(SamplingParams(order="llamacpp"), order="hf")
    assert (chosen.penalty_last_n, chosen.ties) == (None, "all")


def test_a_seed_is_drawn_only_where_chance_decides():
    drawn, settings = resolve(temperature=1.0)
    assert settings["seed"].origin == "drawn at random"
    assert settings["seed"].value == drawn.seed is not None
    assert resolve(temperature=1.0)[0].seed != drawn.seed
    assert resolve(temperature=1.0, seed=5)[0].seed == 5
    assert resolve()[0].seed is None


def test_what_has_no_effect_is_said():
    assert resolve(top_k=5)[1]["top_k"].note == "no effect: temperature is 0"
    assert resolve(top_k=5, temperature=1.0)[1]["top_k"].note == ""
    assert resolve(xtc_threshold=0.2)[1]["xtc_threshold"].note == "no effect: xtc_probability is not set"


ALONE = [("negative_prompt", "guidance_scale", 2.0, 1.0), ("max_drafts", "speculation", "auto", "off")]


@pytest.mark.parametrize("name, switch, on, off", ALONE)
def test_what_would_be_ignored_is_refused(name, switch, on, off):
    value = {"negative_prompt": "dull", "max_drafts": 4}[name]
    refused = f"^{name}={value!r} does nothing without {switch}; .*such as {switch}=.*leave {name} out$"
    for given in ((None, {name: value}), (SamplingParams(**{name: value}), {})):
        with pytest.raises(UsageError, match=refused):
            resolve(given[0], **given[1])
    assert resolve(**{name: value, switch: on})[1][name].note == ""
    assert resolve(SamplingParams(**{name: value}), **{switch: on})[1][name].note == ""
    # Off, in so many words: a caller that goes through several values may say so.
    assert resolve(**{name: value, switch: off})[1][name].note == f"no effect: {switch} is not set"
    assert getattr(resolve(**({name: None} if name == "negative_prompt" else {}))[0], switch) == off


def test_what_was_switched_off_stays_said():
    """Through copies, pickles and the resolved parameters themselves, which a generation goes on from."""
    guessing = SamplingParams(speculation="always", max_drafts=4)
    off = guessing.replace(speculation="off")
    again = (off, off.replace(temperature=1.0), off.bound(), pickle.loads(pickle.dumps(off)), resolve(off)[0])
    for params in (*again, SamplingParams(**off.to_dict())):
        assert (resolve(params, top_k=5)[0].max_drafts, params.speculation) == (4, "off")
    assert off == SamplingParams(max_drafts=4) and off.non_defaults() == {"max_drafts": 4}


def test_errors():
    with pytest.raises(UsageError, match="temperature"):
        resolve(temprature=1.0)
    with pytest.raises(UsageError, match="expected SamplingParams, got dict"):
        resolve({"temperature": 1.0})
