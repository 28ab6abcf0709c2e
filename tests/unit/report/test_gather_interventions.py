"""Reports of generations in which something was changed within the model: computed again with the same changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM, read_run
from pellucid.glass.apply import InterventionWatch, at_positions
from pellucid.glass.intervene import ForceToken, Patch, Scale, Steer, ZeroAblate
from pellucid.report.gather import PRESENT, Wanted, of_generation, of_result, of_run
from pellucid.report.page_data import Report
from pellucid.sampling.distribution import Distribution

PROMPT = "Once upon a time"
VECTOR = np.random.default_rng(3).normal(size=96).astype(np.float32)
CHANGES: list[list[Any]] = [
    [Steer(VECTOR, layer=1)],
    [Steer(VECTOR, layer=1, steps=(2, 6))],
    [ZeroAblate(layer=1, part="attention"), Scale(0.5, layer=2, site="mlp_out", steps=(0, None))],
    [Patch(np.stack([VECTOR, -VECTOR]), layer=0, start=3)],
    [Steer(VECTOR, layer=0, steps=(0, 3)), ForceToken(4, 70)],
]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory):
    path: Path = make(tmp_path_factory.mktemp("changed"), "llama", "gguf", "F32")
    with LLM(path, num_threads=2) as loaded:
        yield loaded


def check(llm: LLM, report: Report, ids: list[int], changes: list[Any], num_prompt: int) -> None:
    assert report.notes in ((), (PRESENT,))
    tokens = report.branches[0].tokens
    assert [token.token_id for token in tokens] == ids
    logits = llm.logits(ids, interventions=at_positions(changes, num_prompt))
    for token in tokens[1:]:
        row = Distribution(logits[token.position - 1])
        assert (token.logprob, token.rank) == (row.logprob(token.token_id), row.rank(token.token_id))
        assert token.layers[-1].rank == token.rank
        assert token.layers[-1].logprob == pytest.approx(token.logprob, rel=1e-6, abs=1e-6)
        assert (token.choice is None) == (token.position < num_prompt)


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "+".join(each.kind for each in changes))
def test_of_a_result_and_of_its_run_file(llm: LLM, tmp_path: Path, changes: list[Any]) -> None:
    settings: dict[str, Any] = {"temperature": 1, "seed": 3, "max_tokens": 10, "ignore_eos": True}
    result = llm.generate(PROMPT, interventions=changes, record=tmp_path / "run", **settings)
    assert result.interventions == tuple(changes)
    assert llm.generate(PROMPT, **settings).interventions == ()
    ids = result.prompt_token_ids + result.token_ids
    check(llm, of_result(result, llm, Wanted()), ids, changes, len(result.prompt_token_ids))
    check(llm, of_run(read_run(tmp_path / "run"), llm, Wanted()), ids, changes, len(result.prompt_token_ids))
    assert result.to_dict()["interventions"] == [each.plain() for each in changes]


@pytest.mark.parametrize("changes", CHANGES[:4], ids=lambda changes: "+".join(each.kind for each in changes))
def test_of_a_generation(llm: LLM, changes: list[Any]) -> None:
    from pellucid import Capture

    generation = llm.begin(
        PROMPT, temperature=1, seed=3, ignore_eos=True, interventions=changes, capture=Capture()
    )
    generation.run(10)
    ids = generation.token_array.tolist()
    num_prompt = len(generation.prompt_tokens)
    check(llm, of_generation(generation, llm, Wanted()), ids, changes, num_prompt)
    assert llm.begin(ids).peek().logits.tolist() != generation.fork().peek().logits.tolist()


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "+".join(each.kind for each in changes))
@pytest.mark.parametrize("num_prompt", [1, 5])
def test_positions_mean_what_steps_meant(llm: LLM, changes: list[Any], num_prompt: int) -> None:
    model = llm._need().model
    first = InterventionWatch(changes, model, num_prompt)
    assert InterventionWatch(at_positions(changes, num_prompt), model, 17).key == first.key
    assert not any(getattr(each, "steps", None) for each in at_positions(changes, num_prompt))


def test_what_acts_nowhere_is_left_out() -> None:
    nowhere = Steer(VECTOR, layer=1, steps=(2, 6), positions=(0, 3))
    assert at_positions([nowhere, ForceToken(1, 2)], 10) == ()
    rows = np.stack([VECTOR, 2 * VECTOR, 3 * VECTOR])
    given = [Patch(rows, 1, start=5), Patch(rows, 1, start=8), Scale(2.0, 1, steps=(0, 3))]
    assert at_positions(given, 4, 8) == (Patch(rows, 1, start=5), Scale(2.0, 1, positions=(3, 6)))
    assert at_positions(given, 9, 7) == (Patch(rows[:2], 1, start=5),)


def test_a_run_that_was_ended_is_shown_and_replayed_with_what_it_never_came_to(
    llm: LLM, tmp_path: Path
) -> None:
    """A stream that is closed early; the rest of the patch, the steps and the forced token were still to come."""
    start = len(llm.tokenizer.encode(PROMPT)) + 2
    patch, steps = Patch(np.stack([VECTOR] * 9), 0, start=start), Scale(2.0, 1, steps=(20, None))
    changes = [patch, steps, ForceToken(30, 5)]
    with llm.stream(
        PROMPT, max_tokens=40, ignore_eos=True, interventions=changes, record=tmp_path / "run"
    ) as stream:
        for _ in range(6):
            next(stream)
    result, run = stream.result, read_run(tmp_path / "run")
    assert result.finish_reason == "abort" and len(result.notes) == 3
    assert llm.replay(run).equal and llm.replay(run, way="generate").equal
    for report in (of_result(result, llm, Wanted()), of_run(run, llm, Wanted())):
        logits = llm.logits(
            result.prompt_token_ids + result.token_ids,
            interventions=at_positions(changes, start - 2, start - 2 + len(result.token_ids)),
        )
        for token in report.branches[0].tokens[1:]:
            assert token.logprob == Distribution(logits[token.position - 1]).logprob(token.token_id)
            assert token.layers[-1].logprob == pytest.approx(token.logprob, rel=1e-6, abs=1e-6)


def test_steps_of_a_generation_count_from_the_prompt_that_it_began_with(llm: LLM) -> None:
    """Rewound into the prompt, it changes what it did: so does its report."""
    change = Scale(3.0, 1, steps=(1, 4))
    with llm.begin(PROMPT, max_tokens=9, ignore_eos=True, interventions=[change]) as generation:
        num_prompt = len(generation)
        generation.rewind(3).run(9)
        ids = generation.token_array.tolist()
        assert len(ids) > num_prompt + 4
        settled = list(at_positions([change], num_prompt))
        check(llm, of_generation(generation, llm, Wanted()), ids, settled, num_prompt - 3)
