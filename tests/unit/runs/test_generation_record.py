"""Steps of a generation held in the hand: why each, and a run file that follows whatever is done to it."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import Generation, Recorder, UsageError, read_run
from pellucid.sampling.record import explain_choice

PROMPT = "Once upon a time there was"
PARAMS = {"temperature": 1.0, "seed": 4, "ignore_eos": True, "max_tokens": 200}
CHAINS = [
    {},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "seed": 2},
    {"temperature": 1, "order": "llamacpp", "mirostat": 2, "mirostat_tau": 3, "seed": 5},
    {"regex": "[a-c ]{3,40}", "temperature": 1, "seed": 3},
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_every_why_of_a_step_recomputes(llm, chain):
    generation = llm.begin(PROMPT, max_tokens=25, **chain)
    seen = []
    while generation.finish_reason is None:
        step = generation.peek()
        open_record = step.why().record
        step.choose()
        record = step.why().record
        assert open_record.token_id == record.token_id == record.recompute() == record.choice.token_id
        seen.append(step)
    tokens = [step.token_id for step in seen]
    assert tokens == generation.tokens == llm.generate(PROMPT, max_tokens=25, **chain).token_ids
    for step in seen:  # long after
        record = step.why().record
        assert record.recompute() == step.token_id and record.position == step.position
        assert record.choice == explain_choice(
            step.logits,
            generation.token_array,
            record.params.replace(logprobs=0),
            record.seed,
            position=step.position,
            num_prompt=len(generation.prompt_tokens),
            stop_ids=record.history.stop_ids,
            states=record.choice.states or None,
        )
        assert step._repr_html_().startswith("<div>") and step.distribution._repr_html_().startswith("<div>")


def test_forced_and_altered_steps_say_so(llm):
    generation = llm.begin(PROMPT, **PARAMS)
    step = generation.peek()
    would = step.why().record.token_id
    other = int(np.argmin(step.logits))
    step.force(other)
    why = step.why()
    assert why.record.flags.forced and "was forced by the caller" in why.sentence
    assert why.record.recompute() == would == why.record.choice.token_id
    step = generation.peek()
    step.bias({7: 100.0})
    step.choose()
    record = step.why().record
    assert step.token_id == 7 == record.recompute() and record.flags.altered
    late = generation.peek()
    generation.append([5])
    with pytest.raises(UsageError, match="left this step"):
        late.why()


def test_altered_logits_are_recorded_and_decide_the_replay(llm, tmp_path):
    with llm.begin(PROMPT, record=tmp_path / "run", **PARAMS) as generation:
        generation.run(2)
        step = generation.peek()
        other = int(np.argmin(step.logits))
        changed = {other: 100.0, (other + 1) % len(step.logits): -1.5}
        step.bias(changed)
        expected = {token: float(step.effective_logits[token]) for token in changed}
        step.choose()
        generation.run(2)
    tokens = read_run(tmp_path / "run").branches[0].tokens
    assert tokens[2].token_id == other and tokens[2].altered == expected
    assert all(token.altered is None for token in tokens[:2] + tokens[3:])
    assert llm.replay(tmp_path / "run").equal


def test_a_generation_that_ended_and_was_changed_ends_anew(llm, tmp_path):
    with llm.begin(PROMPT, max_tokens=5, ignore_eos=True, record=tmp_path / "run") as generation:
        generation.run()
        assert read_run(tmp_path / "run").complete
        generation.rewind(2)
        assert not read_run(tmp_path / "run").complete
    run = read_run(tmp_path / "run")
    assert run.complete and len(run.branches[0].tokens) == 3 and run.branches[0].finish_reason is None


def test_what_a_step_cost_is_told(llm):
    generation = llm.begin("A text that is new here, so that all of it has to be computed", **PARAMS)
    first, second = generation.step(), generation.step()
    manifest = first.why().record.manifest
    assert manifest.num_computed + manifest.num_reused == len(generation.prompt_tokens)
    assert (second.why().record.manifest.num_computed, second.why().record.manifest.num_reused) == (1, 0)
    assert first.why().record.seconds.forward > 0


def state(generation: Generation):
    kinds = {record.position: record.kind for record in generation.records}
    return [(token, kinds.get(i, "prompt")) for i, token in enumerate(generation.token_array.tolist())]


def recorded(branch):
    told = [(token, "prompt") for token in branch.prompt_ids]
    return told + [(token.token_id, token.kind) for token in branch.tokens]


def test_a_run_file_follows_a_generation(llm, tmp_path):
    path = tmp_path / "run"
    with Recorder(path, layers=True) as recorder:
        root = llm.begin(PROMPT, record=recorder, **PARAMS)
        root.run(12)
        root.rewind(3).force(77)
        root.run(4)
        step = root.peek()
        step.bias({9: 3.5, 11: float("-inf")})
        step.choose()
        fork = root.fork(seed=9)
        fork.run(6)
        root.configure(temperature=0.5)
        root.run(3)
        root.edit(len(root) - 5, [3, 4, 5])
        root.run(2)
        low = fork.fork()
        low.append([8, 8], as_prompt=True)
        low.run(5)
        low.append(" and so").run(2)
        fork.rewind(to=4).run(5)
        gone = llm.begin([3, 4, 5], record=recorder, max_tokens=3, seed=1, temperature=1, ignore_eos=True)
        gone.run()
        run = read_run(path)  # while it is being written
        assert not run.complete
        for each, branch in zip((root, fork, low, gone), run.branches, strict=True):
            assert recorded(branch) == state(each)
        for each in (root, fork, low, gone):
            each.close()
    run = read_run(path)
    assert run.complete and [branch.parent for branch in run.branches] == [None, 0, 1, None]
    assert run.branches[3].finish_reason == "length" and run.branches[0].finish_reason is None
    assert sum(1 for token in run.branches[0].tokens if token.altered) <= 1
    done = llm.replay(run)
    assert done.equal, done.lines()
    drawn = [token for branch in run.branches for token in branch.tokens if token.kind == "drawn"]
    assert all(token.digest is not None and len(token.layers) == run.num_layers for token in drawn)
    for branch in run.branches:
        for record in llm.records(branch):
            assert record.kind != "drawn" or record.recompute() == record.token_id
            prompts = [token.position + 1 for token in branch.tokens if token.kind == "prompt"]
            before = [end for end in prompts if end <= record.position]
            assert record.history.num_prompt == max(before, default=len(branch.prompt_ids))
            assert llm.why(branch, branch.tokens.index(branch.tokens[0])).sentence


def test_random_changes_are_followed(llm, tmp_path):
    """Whatever is done, in whatever order: the file says what the generations are, and replays."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        path = tmp_path / f"run{seed}"
        recorder = Recorder(path)
        held = [llm.begin(PROMPT, record=recorder, **PARAMS)]
        for _ in range(40):
            each = held[int(rng.integers(len(held)))]
            action = int(rng.integers(9))
            if action <= 3:
                each.run(int(rng.integers(1, 4)))
            elif action == 4:
                each.rewind(to=int(rng.integers(1, len(each) + 1)))
            elif action == 5:
                each.append(rng.integers(2, 300, 3).tolist(), as_prompt=bool(rng.integers(2)))
            elif action == 6:
                each.edit(
                    int(rng.integers(len(each))), rng.integers(2, 300, int(rng.integers(1, 3))).tolist()
                )
            elif action == 7 and len(held) < 5:
                held.append(each.fork(sample_index=int(rng.integers(3))))
            else:
                each.configure(temperature=float(rng.uniform(0, 2)))
        recorder.steps.flushed()
        run = read_run(path)
        for each, branch in zip(held, run.branches, strict=True):
            assert recorded(branch) == state(each)
        done = llm.replay(run)
        assert done.equal, done.lines()


def test_interventions_are_recorded_and_replayed(llm, tmp_path):
    from pellucid import Capture
    from pellucid.glass.intervene import Patch, Scale, Steer, ZeroAblate

    vector = np.linspace(-3, 3, 96).astype(np.float32)
    donor = llm.trace("Some other text of some length", capture=Capture(sites=("resid_post",)))
    given = [
        Steer(vector, layer=1, steps=(2, 6)),
        ZeroAblate(layer=0, part="heads", heads=(1,)),
        Patch.of(donor, 1, positions=(1, 4)),
        Scale(0.5, layer=2, site="mlp_out"),
    ]
    path = tmp_path / "run"
    with Recorder(path, layers=True) as recorder:
        changed = llm.generate(PROMPT, max_tokens=20, interventions=given, record=recorder, ignore_eos=True)
        generation = llm.begin(PROMPT, interventions=given, record=recorder, max_tokens=20, ignore_eos=True)
        generation.run()
        generation.close()
        llm.generate(PROMPT, max_tokens=20, record=recorder, ignore_eos=True)
    run = read_run(path)
    assert [len(branch.interventions) for branch in run.branches] == [4, 4, 0]
    assert (
        run.branches[0].output_ids
        == changed.token_ids
        == run.branches[1].output_ids
        != run.branches[2].output_ids
    )
    assert [t.layers for t in run.branches[0].tokens] == [t.layers for t in run.branches[1].tokens]
    for way in ("rows", "generate"):
        done = llm.replay(run, way=way)
        assert done.equal, done.lines()
    assert all(record.recompute() == record.token_id for record in llm.records(run, sample=0))
    run.branches[0].interventions = run.branches[0].interventions[1:]
    first = llm.replay(run).branches[0].first
    assert (first.what, first.index, first.layer) == ("layer", 2, 1)  # where steering began


def test_an_end_that_was_taken_back_is_no_end(llm, tmp_path):
    """What the file says last is how the generation stands when it is closed."""
    for name, change, reason in (
        ("back", lambda generation: generation.rewind(2), None),
        ("more", lambda generation: generation.append([7]), "length"),
        ("none", lambda generation: None, "length"),
    ):
        generation = llm.begin(PROMPT, record=tmp_path / name, **PARAMS | {"max_tokens": 5})
        generation.run()
        change(generation)
        tokens = generation.tokens
        assert generation.finish_reason == reason
        generation.close()
        (branch,) = read_run(tmp_path / name).branches
        assert ([token.token_id for token in branch.tokens], branch.finish_reason) == (tokens, reason)
