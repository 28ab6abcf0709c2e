"""Looking back at a run: every choice is made again, a replay proves what it says, what-if tells what generating
would."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM, Capture, Recorder, RunFileError, UsageError, ZeroAblate, _native, read_run
from pellucid.glass.diff import diff_runs, parting
from pellucid.glass.digests import digest, sketch
from pellucid.glass.run import RunDrop
from pellucid.glass.why import Why
from pellucid.ops.cpu import CpuOps

PROMPT = "Once upon a time there was"
CHAINS = [
    {},
    {"repetition_penalty": 1.5, "banned_ids": [0, 1]},
    {"temperature": 1, "seed": -3},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.02, "frequency_penalty": 0.5, "seed": 2},
    {"temperature": 1.2, "typical_p": 0.7, "xtc_probability": 0.5, "xtc_threshold": 0.05, "seed": 2},
    {"temperature": 1, "order": "llamacpp", "mirostat": 2, "mirostat_tau": 3, "seed": 5},
    {"temperature": 1, "order": "llamacpp", "adaptive_target": 0.2, "dry_multiplier": 0.8, "seed": 6},
    {"regex": "[a-c ]{3,40}", "temperature": 1, "seed": 3},
    {
        "overflow": "slide",
        "slide_keep": 3,
        "temperature": 1,
        "seed": 3,
        "max_tokens": 150,
        "ignore_eos": True,
    },
    {"guidance_scale": 2.0, "negative_prompt": "A dull", "temperature": 1, "seed": 2, "max_tokens": 70},
    {"speculation": "always", "temperature": 0.3, "seed": 4, "max_tokens": 60},
    {"speculation": "jacobi", "max_tokens": 60},
    {"stop": ["e"], "temperature": 1, "seed": 8, "logprobs": 3},
]


def name(chain):
    return ",".join(chain) or "greedy"


@pytest.fixture(scope="module")
def small(tiny_path):
    """A context of 96 tokens, so that some runs slide."""
    with LLM(tiny_path, num_threads=1, context_length=96) as loaded:
        yield loaded


@pytest.mark.parametrize("chain", CHAINS, ids=name)
def test_every_why_recomputes(small, tmp_path, chain):
    result = small.generate(PROMPT, n=2, record=tmp_path / "run", **{"max_tokens": 30, **chain})
    run = read_run(tmp_path / "run")
    for sample, output in enumerate(result.outputs):
        records = small.records(run, sample=sample)
        assert [record.recompute() for record in records] == output.token_ids
        assert [record.choice.token_id for record in records] == output.token_ids
        assert [record.token_id for record in records] == output.token_ids
        ids = result.prompt_token_ids + output.token_ids
        if not output.drops:
            rows = small.logits(ids)[len(result.prompt_token_ids) - 1 :]
            for record, row in zip(records, rows, strict=False):
                assert np.array_equal(record.logits, row)
            assert all(drop.count == 0 for drop in output.drops)
        else:
            assert output.drops == tuple(output.drops) and len(run.branches[sample].drops) == len(
                output.drops
            )
        for again, record in zip(small.records(result, sample=sample), records, strict=True):
            assert np.array_equal(again.logits, record.logits) and again.choice == record.choice
            assert again.manifest.digest == record.manifest.digest
            assert again.position == record.position == record.choice.position
        whole = small.records(run, sample=sample)
        (one,) = small.records(run, 7, 8, sample=sample) if len(records) > 7 else (whole[0],)
        assert one.choice == whole[min(7, len(whole) - 1) if len(records) > 7 else 0].choice
        for record in records[::5]:
            why = small.why(run, records.index(record), sample=sample)
            assert (
                repr(small.tokenizer.token_text(record.token_id)) in why.sentence and "\n" not in why.sentence
            )
            assert why._repr_html_().startswith("<div>") and why.to_dict()["token_id"] == record.token_id
    assert small.replay(run).equal and small.replay(run, way="generate").equal


def test_large_numbers_are_parted_by_commas(llm, tmp_path):
    """As every other command does: of a vocabulary of 40,000, of which top-k 2,000 leaves a part."""
    path = tmp_path / "a"
    llm.generate(PROMPT, max_tokens=1, temperature=1, top_k=2000, seed=1, ignore_eos=True, record=path)
    (record,) = llm.records(path)
    logits = np.linspace(9, 0, 40_000, dtype=np.float32)
    why = Why(
        dataclasses.replace(
            record,
            logits=logits,
            effective_logits=logits,
            token_id=30_000,
            text_of=lambda token: f"<{token}>",
        )
    )
    assert "(rank 30,001; '<0>'" in why.sentence and " leaves 2,000 tokens" in why.sentence
    assert [row[1:4:2] for row in why.rows if row[0] in ("model", "top_k")] == [
        ("", "40,000"),
        ("38,000", "2,000"),
    ]


def test_what_was_computed_is_told(llm, tmp_path):
    """Rows and reused positions of all tokens add up to those of the result."""
    text = "A prompt that nobody else has given, of several words"
    first = llm.generate(text, max_tokens=9, ignore_eos=True, record=tmp_path / "a")
    again = llm.generate(text, max_tokens=9, ignore_eos=True, record=tmp_path / "b")
    for result, path in ((first, "a"), (again, "b")):
        tokens = read_run(tmp_path / path).branches[0].tokens
        assert (tokens[0].num_computed, tokens[0].num_reused) == (
            result.counts.computed,
            result.counts.reused,
        )
        assert all((token.num_computed, token.num_reused) == (1, 0) for token in tokens[1:])
        assert [token.pass_number for token in tokens] == sorted({token.pass_number for token in tokens})
    assert again.counts.reused > first.counts.reused
    record = llm.records(again, 3, 4)[0]
    assert record.manifest.num_positions == again.counts.prompt + 3 and record.manifest.mask == "causal"


def test_flags(llm, tmp_path):
    wanted = llm.generate(PROMPT, max_tokens=1, logprobs=2)
    best, second = (each.token_id for each in wanted.logprobs[0].top)
    (record,) = llm.records(llm.generate(PROMPT, max_tokens=1, allowed_ids=[second]))
    assert record.flags.only_one and "leaves 1 token" in llm.why(record_of(llm, second)).sentence
    (free,) = llm.records(wanted)
    assert free.token_id == best and not free.flags.forced
    gap = free.choice.margin
    assert dataclasses.replace(free, noise_margin=gap * 1.01).flags.near_tie
    assert not dataclasses.replace(free, noise_margin=gap * 0.99).flags.near_tie
    warm = dataclasses.replace(free, params=free.params.replace(temperature=2.0))  # margins are of logits / 2
    assert dataclasses.replace(warm, noise_margin=2 * warm.choice.margin * 1.01).flags.near_tie
    assert not dataclasses.replace(warm, noise_margin=2 * warm.choice.margin * 0.99).flags.near_tie
    letters = llm.generate(PROMPT, max_tokens=3, choices=["zq", "zx"])
    flags = [record.flags for record in llm.records(letters)]
    assert flags[0].constrained and any(each.forced_by_constraint for each in flags)
    worst = int(np.argmin(free.logits))
    unlikely = llm.generate(PROMPT, max_tokens=1, allowed_ids=[worst])
    assert llm.records(unlikely)[0].flags.improbable == (llm.records(unlikely)[0].probability(worst) < 0.01)


def record_of(llm, token):
    return llm.generate(PROMPT, max_tokens=1, allowed_ids=[token])


OVERRIDES = [
    {"temperature": 0.5}, {"temperature": 0}, {"top_p": 0.6}, {"seed": 7}, {"top_k": 3, "seed": 5}, {"max_tokens": 10},
    {"max_tokens": 40}, {"stop": ["a"]}, {"repetition_penalty": 1.3}, {"banned_ids": [101, 32]}, {"min_p": 0.3},
    {"order": "llamacpp", "mirostat": 2}, {"stop_token_ids": [110, 111]}, {"temperature": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("override", OVERRIDES, ids=str)
def test_what_if_is_what_generating_would_be(llm, tmp_path, override):
    """Compared with the text that the other settings generate: the first difference is where what-if says."""
    base = {"temperature": 1.0, "seed": 4, "max_tokens": 30, "ignore_eos": True, "n": 3}
    result = llm.generate(PROMPT, record=tmp_path / "run", **base)
    other = llm.generate(PROMPT, **{**base, **override})
    found = llm.what_if(tmp_path / "run", **override)
    assert found.branches and found.same == (
        [o.token_ids for o in result.outputs] == [o.token_ids for o in other.outputs]
    )
    for branch, was, now in zip(found.branches, result.outputs, other.outputs, strict=True):
        first = next(
            (i for i, (a, b) in enumerate(zip(was.token_ids, now.token_ids, strict=False)) if a != b),
            min(len(was.token_ids), len(now.token_ids)),
        )
        if was.token_ids == now.token_ids:
            assert branch.turn is None
            continue
        turn = branch.turn
        assert turn.index == first
        assert turn.was == (was.token_ids[first] if first < len(was.token_ids) else None)
        if first < len(was.token_ids):
            assert turn.would_be == (now.token_ids[first] if first < len(now.token_ids) else None)
        if turn.now is not None:
            assert turn.now.record.recompute() == turn.would_be and turn.then.record.recompute() == turn.was
    assert found.lines(llm.tokenizer.token_text) and found.to_dict()["same"] == found.same


def test_what_if_misuse(llm, tmp_path):
    llm.generate(PROMPT, max_tokens=4, record=tmp_path / "run")
    for wrong in ({}, {"n": 2}, {"top_pp": 1}, {"top_p": 7}):
        with pytest.raises(UsageError):
            llm.what_if(tmp_path / "run", **wrong)


def test_a_repr_is_one_short_line(llm, tmp_path):
    """Whatever the length of the run."""
    for name, seed in (("a", 1), ("b", 2)):
        llm.generate(PROMPT, n=2, temperature=1, seed=seed, max_tokens=60, record=tmp_path / name)
    a, b = read_run(tmp_path / "a"), read_run(tmp_path / "b")
    told = [
        repr(each)
        for each in (llm.replay(a), llm.what_if(a, seed=2), llm.what_if(a, seed=1), diff_runs(a, b))
    ]
    assert all("\n" not in line and len(line) < 200 + 2 * len(str(tmp_path)) for line in told)
    assert f"{a.path} by rows: equal: 120 tokens" in told[0]
    assert "another seed: 2 of 2 branches not the same" in told[1]
    assert "another nothing" not in told[2] and "the same text" in told[2]
    assert "2 and 2 branches, 2 of them part" in told[3]


# --- replay ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_path(llm, tmp_path_factory):
    """Of many requests at a time, on two threads."""
    path = tmp_path_factory.mktemp("replay") / "run"
    with Recorder(path, layers=True) as recorder:
        llm.generate(
            [PROMPT, "x", [7, 9, 11], PROMPT + " no"],
            n=2,
            temperature=1,
            seed=9,
            max_tokens=40,
            record=recorder,
        )
        llm.generate("alone", max_tokens=20, record=recorder)
    return path


@pytest.mark.parametrize("way", ["rows", "generate"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_threads": 1},
        {"num_threads": 3, "prefill_chunk": 1},
        {"max_sequences": 1},
        {"prefill_chunk": 64, "max_sequences": 3},
        {"prefix_caching": False, "kv_memory": 1 << 21},
    ],
    ids=str,
)
def test_a_replay_is_equal_elsewhere(tiny_path, run_path, options, way):
    with LLM(tiny_path, **options) as other:
        done = other.replay(run_path, way=way)
    run = read_run(run_path)
    assert done.equal and not done.notes
    for counted in ("num_choices", "num_tokens", "num_digests"):
        assert sum(getattr(b, counted) for b in done.branches) == run.num_tokens
    assert sum(b.num_layers for b in done.branches) == run.num_tokens * run.num_layers > 0


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_a_replay_is_equal_on_every_instruction_set(tiny_path, run_path, isa, monkeypatch):
    real = CpuOps.__init__
    monkeypatch.setattr(
        CpuOps, "__init__", lambda self, threads=1, _=None, **more: real(self, threads, isa, **more)
    )
    with LLM(tiny_path) as other:
        assert other._need().ops.runner.isa == isa
        assert other.replay(run_path).equal and other.replay(run_path, way="generate").equal


def test_a_replay_finds_what_was_changed(llm, run_path):
    run = read_run(run_path)
    changed = dataclasses.replace(
        run.branches[2].tokens[5], token_id=(run.branches[2].tokens[5].token_id + 1) % 300
    )
    was = run.branches[2].tokens[5].token_id
    run.branches[2].tokens[5] = changed
    done = llm.replay(run)
    assert not done.equal
    assert [b.index for b in done.branches if b.first] == [2]
    first = done.branches[2].first
    assert (first.what, first.index, first.token_a, first.token_b) == ("token", 5, changed.token_id, was)
    assert any("step 5" in line and "then" in line for line in done.lines())
    generated = llm.replay(run, way="generate")
    assert generated.branches[2].first.index == 5 and generated.to_dict()["equal"] is False


def test_a_run_of_other_parameters_is_not_equal(llm, run_path):
    run = read_run(run_path)
    plan = run.branches[0].plans[0]
    run.branches[0].plans[0] = dataclasses.replace(plan, seed=plan.seed + 1)
    assert not llm.replay(run).equal


def test_another_model_is_refused(run_path, tmp_path_factory):
    with LLM(make(tmp_path_factory.mktemp("other"), "qwen3", "gguf", "F32")) as other:
        for look in (other.replay, other.why, lambda path: other.what_if(path, seed=1)):
            with pytest.raises(RunFileError, match="another model"):
                look(run_path)


def test_what_no_replay_can_follow_is_told(llm, run_path):
    run = read_run(run_path)
    run.branches[0].drops.append(RunDrop(40, 3, 10_000))
    with pytest.raises(RunFileError, match="not there"):
        llm.replay(run)
    with pytest.raises(UsageError, match="way"):
        llm.replay(run_path, way="backwards")
    for wrong in (99, "x", None):
        with pytest.raises(UsageError, match="step"):
            llm.why(run_path, wrong)
    with pytest.raises(RunFileError, match="expected a branch"):
        llm.why(run_path, 0, sample=99)


# --- diff -----------------------------------------------------------------------------------------------------


def test_where_two_runs_part_and_why(llm, tmp_path):
    a = llm.generate(PROMPT, temperature=1, seed=1, max_tokens=30, record=tmp_path / "a")
    b = llm.generate(PROMPT, temperature=1, seed=2, max_tokens=30, record=tmp_path / "b")
    llm.generate(PROMPT, temperature=1, seed=1, max_tokens=30, record=tmp_path / "again")
    runs = {each: read_run(tmp_path / each) for each in ("a", "b", "again")}
    found = diff_runs(runs["a"], runs["b"])
    first = next(i for i, (x, y) in enumerate(zip(a.token_ids, b.token_ids, strict=True)) if x != y)
    (branch,) = found.branches
    assert (branch.parting.what, branch.parting.index) == ("token", first)
    assert [change.name for change in branch.changes] == ["seed"] and "another seed" in branch.why
    assert not found.same and not found.model and not found.build
    same = diff_runs(runs["a"], runs["again"])
    assert same.same and same.lines() == ["the same"]


def test_runs_parted_by_an_intervention_say_so(llm, tmp_path):
    for name, changes in (("a", []), ("b", [ZeroAblate(0)])):
        llm.generate(PROMPT, max_tokens=8, ignore_eos=True, interventions=changes, record=tmp_path / name)
    (branch,) = diff_runs(read_run(tmp_path / "a"), read_run(tmp_path / "b")).branches
    assert (branch.parting.what, branch.parting.index) == ("hidden state", 0)
    assert branch.why == "; why: another interventions"


def test_prompts_lengths_and_numbers_that_differ(llm, tmp_path, tiny_path):
    llm.generate(PROMPT, max_tokens=20, record=tmp_path / "a", ignore_eos=True)
    llm.generate(PROMPT + "!", max_tokens=20, record=tmp_path / "b", ignore_eos=True)
    llm.generate(PROMPT, max_tokens=12, record=tmp_path / "c", ignore_eos=True)
    with LLM(tiny_path, kv_format="bf16", num_threads=1, prefill_chunk=3) as other:
        other.generate(PROMPT, max_tokens=20, record=tmp_path / "d", ignore_eos=True)
    a, b, c, d = (read_run(tmp_path / each) for each in "abcd")
    assert diff_runs(a, b).branches[0].parting.what == "prompt"
    ended = diff_runs(a, c).branches[0]
    assert (ended.parting.what, ended.parting.index) == ("length", 12) and "max_tokens" in ended.why
    c.branches[0].plans[0] = dataclasses.replace(c.branches[0].plans[0], stop_ids=(7,))
    assert "stop_ids" in {change.name for change in diff_runs(a, c).branches[0].changes}
    numbers = diff_runs(a, d)
    assert {"kv_format", "numbers"} <= {change.name for change in numbers.model}
    assert "prefill_chunk" in {change.name for change in numbers.branches[0].harmless}
    assert all("\n" not in line for line in numbers.lines())


def test_steps_part_at_the_first_number_that_differs(llm, run_path):
    a, b = read_run(run_path).branches[0], read_run(run_path).branches[0]
    assert parting(a, b) is None
    for tokens, value, layers in ((a.tokens, 1, (1, 2, 3)), (b.tokens, 2, (1, 5, 6))):
        tokens[4] = dataclasses.replace(tokens[4], digest=value, layers=layers, sketch=float(value))
    found = parting(a, b)
    assert (found.what, found.index, found.layer, found.gap) == ("layer", 4, 1, 1.0)
    b.tokens[4] = dataclasses.replace(b.tokens[4], layers=None)
    assert (parting(a, b).what, parting(a, b).layer) == ("hidden state", None)


# --- digests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [0, 1])
def test_digests_are_those_of_the_rows(llm, run_path, sample):
    """Against the activations that a capture of the same tokens gives."""
    run = read_run(run_path)
    branch = next(b for b in run.branches if b.prompt == PROMPT and b.sample_index == sample)
    capture = Capture(sites=("resid_post", "final"))
    captured = llm.trace(branch.prompt_ids + branch.output_ids, capture=capture)
    for token in branch.tokens:
        row = token.position - 1
        final = captured["final"][row, 0]
        assert token.digest == digest(final) and token.sketch == pytest.approx(sketch(final), rel=1e-6)
        assert token.layers == tuple(digest(each) for each in captured["resid_post"][row])


def test_recording_changes_nothing(llm, tmp_path):
    for params in (
        {"temperature": 1, "seed": 3},
        {"temperature": 0.5, "top_p": 0.9, "seed": 1, "logprobs": 2},
        {},
    ):
        plain = llm.generate(PROMPT, max_tokens=40, n=2, **params)
        recorder = Recorder(tmp_path / "r", layers=True)
        recorded = llm.generate(PROMPT, max_tokens=40, n=2, record=recorder, **params)
        assert [o.token_ids for o in plain.outputs] == [o.token_ids for o in recorded.outputs]
        assert [o.logprobs for o in plain.outputs] == [o.logprobs for o in recorded.outputs]


def test_another_number_is_named_with_its_layer(llm, run_path, tiny_path):
    with LLM(tiny_path, kv_format="bf16") as other:
        done = other.replay(run_path)
    assert not done.equal and any("KV format" in note for note in done.notes)
    first = done.branches[0].first
    assert (first.what, first.index, first.layer) == ("layer", 0, 0) and first.gap > 0
    run = read_run(run_path)
    token = run.branches[0].tokens[7]
    run.branches[0].tokens[7] = dataclasses.replace(token, layers=(token.layers[0], 5, token.layers[2]))
    found = llm.replay(run).branches[0].first
    assert (found.what, found.index, found.layer) == ("layer", 7, 1)


def test_the_sketch_estimates_a_distance():
    """In the mean over pairs, the squared difference of sketches is the squared distance."""
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((4000, 96)).astype(np.float32)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    ratios = [(sketch(a) - sketch(b)) ** 2 / float(((a - b) ** 2).sum()) for a, b in pairs]
    assert 0.8 < np.mean(ratios) < 1.25
    assert digest(np.array([0.0, 1.0], np.float32)) != digest(np.array([-0.0, 1.0], np.float32))
