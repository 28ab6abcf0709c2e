"""Interventions as data: to JSON and back, by hand, damaged; `ab` on the command line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_checkpoints import make

from pellucid import ForceToken, MeanAblate, Patch, PellucidError, Scale, Steer, UsageError, ZeroAblate
from pellucid.glass.intervention_file import (
    InterventionFileError,
    interventions_from_data,
    interventions_to_data,
    load_interventions,
    save_interventions,
)

V = np.random.default_rng(0).normal(size=96).astype(np.float32)
EVERY = (
    Steer(V, 1, "attn_out", 0.1, (3, None), (0, 4)),
    Steer(V, -1),
    Patch(np.stack([V, V + 1]), 0, "q", 5),
    ZeroAblate(2, "heads", (3, 1)),
    ZeroAblate(0),
    MeanAblate(V * 2, 1, "mlp"),
    Scale(1.0 / 3.0, 1, "z", (0,), (2, 9)),
    ForceToken(3, 77),
)


def test_through_data_and_files(tmp_path):
    items, arrays = interventions_to_data(EVERY)
    assert len(arrays) == 3  # equal ones are one
    assert interventions_from_data(json.loads(json.dumps(items)), arrays) == EVERY
    save_interventions(tmp_path / "it.json", EVERY)
    back = load_interventions(tmp_path / "it.json")
    assert back == EVERY and back[0].vector.tobytes() == V.tobytes() and back[6].factor == 1.0 / 3.0
    save_interventions(tmp_path / "plain.json", EVERY[3:5])
    assert not (tmp_path / "plain.safetensors").exists()
    assert load_interventions(tmp_path / "plain.json") == EVERY[3:5]


def test_they_are_equal_where_everything_is():
    assert Steer(V, 1) == Steer(V.copy(), 1) and hash(Steer(V, 1)) == hash(Steer(V.copy(), 1))
    assert Steer(V, 1) != Steer(V + 1, 1) and Steer(V, 1) != Steer(V, 2) and ZeroAblate(1) != Steer(V, 1)


def test_by_hand(tmp_path):
    path = tmp_path / "hand.json"
    path.write_text('[{"kind": "steer", "vector": [1, 2], "layer": 0}, {"kind": "zero_ablate", "layer": 3}]')
    assert load_interventions(path) == (Steer([1.0, 2.0], 0), ZeroAblate(3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is no JSON"),
        ("{}", "expected a list of interventions"),
        ('[{"kind": "melt"}]', "intervention 0: kind: expected one of steer"),
        ('[{"kind": "zero_ablate"}]', "a zero_ablate needs layer"),
        ('[{"kind": "zero_ablate", "layer": 0, "strength": 2}]', "a zero_ablate has no 'strength'"),
        ('[{"kind": "steer", "layer": 0, "vector": "array-0"}]', "there is no array 'array-0'"),
        ('[{"kind": "steer", "layer": 0, "vector": [1, "x"]}]', "vector: expected an array of numbers"),
        ('[{"kind": "steer", "layer": 0, "vector": [NaN]}]', "vector: expected finite numbers"),
        ('[{"kind": "zero_ablate", "layer": 0, "part": "heads"}]', 'heads: expected with part "heads"'),
        ('[{"kind": "scale", "layer": 0, "factor": 1e999}]', "factor: expected a finite number"),
        ('[{"kind": "scale", "layer": 0, "factor": 2, "heads": [1]}]', "heads: site resid_post has none"),
        ('[{"kind": "steer", "layer": 0, "vector": [1], "positions": [4, 2]}]', "positions: expected"),
        ('[{"kind": "force_token", "step": -1, "token_id": 3}]', "expected numbers from 0 on"),
        ('{"format": "pellucid-interventions", "version": 9}', "version: expected 1, found 9"),
    ],
)
def test_wrong_files_say_so(tmp_path, text, message):
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(InterventionFileError, match=re.escape(message)) as error:
        load_interventions(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_mutated_files_say_so_in_one_line(tmp_path):
    path = tmp_path / "it.json"
    save_interventions(path, EVERY)
    text, arrays = path.read_text(), path.with_suffix(".safetensors").read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        at = int(rng.integers(0, len(text)))
        path.write_text(text[:at] + chr(int(rng.integers(32, 127))) + text[at + 1 :])
        try:
            load_interventions(path)
        except PellucidError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error)
    path.write_text(text)
    path.with_suffix(".safetensors").write_bytes(arrays[:-1] + bytes([arrays[-1] ^ 1]))
    with pytest.raises(InterventionFileError, match="is not the file that it.json was saved with"):
        load_interventions(path)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(InterventionFileError, match="are not there"):
        load_interventions(path)


def test_their_repr_has_shapes_in_place_of_arrays():
    assert repr(Steer(np.zeros(576, np.float32), 3)) == (
        "Steer(vector=<float32 576>, layer=3, site='resid_post', scale=1.0, positions=(0, None), steps=None)"
    )
    assert repr(ForceToken(3, 77)) == "ForceToken(step=3, token_id=77)"


def test_an_array_is_refused_for_what_is_wrong_with_it():
    with pytest.raises(
        UsageError, match=r"vector: expected finite numbers \(float32\), got 2 of 3 that are not"
    ):
        Steer(np.array([np.nan, 1, 1e39]), 3)
    with pytest.raises(UsageError, match=r"vector: expected numbers in 1 dimension\(s\), got shape \(1, 3\)"):
        Steer(np.zeros((1, 3)), 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make(tmp_path_factory.mktemp("ab"), "llama", "gguf", "F32"))


def test_ab(model):
    from pellucid import LLM
    from pellucid.sampling.distribution import Distribution

    prompt, changes = [5, 9, 100, 33, 17, 250], [ZeroAblate(1), Scale(2.0, 0, "mlp_out")]
    with LLM(model, num_threads=1) as llm:
        found = llm.ab(prompt, changes, top=3, max_tokens=40, temperature=1.0, ignore_eos=True)
        seed = found.without.settings["seed"].value
        assert found.with_.settings["seed"].value == seed  # the same noise
        params = {"max_tokens": 40, "temperature": 1.0, "ignore_eos": True, "seed": seed}
        assert found.with_.token_ids == llm.generate(prompt, **params, interventions=changes).token_ids
        a, b = found.without.token_ids, found.with_.token_ids
        assert found.parts_at == next((i for i in range(40) if a[i] != b[i]), None)
        plain, changed = llm.logits(prompt + a), llm.logits(prompt + a, interventions=changes)
        assert [step.token_id for step in found.steps] == a
        for i, step in enumerate(found.steps):
            one, other = Distribution(plain[5 + i]), Distribution(changed[5 + i])
            assert step.position == 6 + i and step.logprob_without == one.logprob(a[i])
            assert step.logprob_with == other.logprob(a[i])
            assert [alternative.token_id for alternative in step.top_with] == other.top(3)
            p = np.exp(plain[5 + i].astype(np.float64) - one.log_normalizer)
            q = np.exp(changed[5 + i].astype(np.float64) - other.log_normalizer)
            assert step.divergence == pytest.approx((p * np.log(p / q)).sum(), abs=1e-9)
        assert len(repr(found)) < 300 and len(repr(found.steps[0])) < 150
        with pytest.raises(UsageError, match="at least one intervention"):
            llm.ab(prompt, [])
        llm.generate = None  # nothing is generated before what is wrong is told
        with pytest.raises(UsageError, match="is forced at step 40, and there are steps 0 to 39"):
            llm.ab(prompt, [ForceToken(40, 7)], max_tokens=40)


def test_ab_and_generate_on_the_command_line(model, tmp_path, monkeypatch):
    from pellucid.cli.main import main

    path = tmp_path / "it.json"
    path.write_text('[{"kind": "zero_ablate", "layer": 1}]')
    run = lambda *words: CliRunner().invoke(main, [*words, "--model", model, "--max-tokens", "6"])  # noqa: E731
    monkeypatch.setenv("COLUMNS", "1000")
    shown = run("ab", "Hello there", "-i", str(path), "--top", "2")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("without: ") and "best with" in shown.stdout and "KL" in shown.stdout
    monkeypatch.setenv("COLUMNS", "60")
    narrow = run("ab", "Hello there", "-i", str(path), "--top", "2").stdout.splitlines()
    wide = shown.stdout.splitlines()
    assert narrow[4].split() == wide[4].split()[:5] and len(narrow) - 5 == 3 * (len(wide) - 5)
    for number, line in enumerate(wide[5:]):
        row, without, with_ = narrow[5 + 3 * number : 8 + 3 * number]
        parts = [*row.split(), *without.split()[1:], *with_.split()[1:]]
        assert parts == line.split() and len(row) <= 60
    monkeypatch.delenv("COLUMNS")
    data = json.loads(run("ab", "Hello there", "-i", str(path), "--json").stdout)
    assert len(data["steps"]) == len(data["without"]["outputs"][0]["token_ids"])
    changed = json.loads(run("generate", "Hello there", "--json", "--interventions", str(path)).stdout)
    assert changed["outputs"][0]["token_ids"] == data["with"]["outputs"][0]["token_ids"]
    path.write_text('[{"kind": "force_token", "step": 5, "token_id": 7}]')
    text = data["without"]["outputs"][0]["text"]
    ended = ("--interventions", str(path), "--stop", text[:1])
    for more in ((), ("--json",)):
        told = run("generate", "Hello there", *ended, *more)
        assert (
            told.exit_code == 0 and "not in effect: token 7 is forced at step 5; there were " in told.stderr
        )
    assert len(json.loads(told.stdout)["notes"]) == 1
    path.write_text('[{"kind": "force_token", "step": 6, "token_id": 7}]')
    beyond = run("generate", "Hello there", "--interventions", str(path))
    assert beyond.exit_code == 2 and "is forced at step 6, and there are steps 0 to 5" in beyond.stderr
    path.write_text("[{}]")
    wrong = run("ab", "Hello", "-i", str(path))
    assert wrong.exit_code == 2 and "kind: expected one of" in wrong.stderr
