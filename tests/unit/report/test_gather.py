"""What a report says of a run: the numbers of the run itself, though almost none of them is in its file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import Page
from tiny_checkpoints import make

from pellucid import LLM, RunFileError, UsageError, read_run
from pellucid.report import gather
from pellucid.report.gather import Wanted, of_generation, of_result, of_run
from pellucid.report.page import render
from pellucid.report.page_data import Report, TokenView
from pellucid.sampling.distribution import Distribution
from pellucid.sampling.record import explain_choice

PROMPT = "Once upon a time there was"
CHAINS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "frequency_penalty": 0.5, "seed": 2},
    {"temperature": 1, "order": "llamacpp", "mirostat": 2, "mirostat_tau": 3, "seed": 5},
    {"regex": "[a-c ]{3,40}", "temperature": 1, "seed": 3},
    {"stop": ["e"], "temperature": 1, "seed": 8, "logprobs": 3},
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = make(tmp_path_factory.mktemp("gather"), "llama", "gguf", "F32")
    return made


@pytest.fixture(scope="module")
def llm(path: Path):
    """A context of 96 tokens, so that a run can slide."""
    with LLM(path, num_threads=1, context_length=96) as loaded:
        yield loaded


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: ",".join(chain) or "greedy")
def test_every_number_is_that_of_the_run(llm: LLM, tmp_path: Path, chain: dict[str, Any]) -> None:
    settings = {"max_tokens": 20, "n": 2, **chain}
    result = llm.generate(PROMPT, record=tmp_path / "run", **settings)
    params = llm.begin(PROMPT, **{**settings, "n": 1, "seed": result.settings["seed"].value}).params
    report = of_run(read_run(tmp_path / "run"), llm, Wanted(top=5))
    assert not report.notes
    prompt = result.prompt_token_ids
    for sample, branch in zip(result.outputs, report.branches, strict=True):
        ids = prompt + sample.token_ids
        start = branch.forked_at
        assert [token.token_id for token in branch.tokens] == ids[start:]
        assert [token.position for token in branch.tokens] == list(range(start, len(ids)))
        assert [token.text for token in branch.tokens] == [llm.tokenizer.token_text(i) for i in ids[start:]]
        logits = llm.logits(ids)
        states: dict[str, Any] | None = None
        for token in branch.tokens:
            if token.position == 0:
                assert token.logprob is None and not token.top and not token.layers
                continue
            row = Distribution(logits[token.position - 1])
            assert (token.logprob, token.rank) == (row.logprob(token.token_id), row.rank(token.token_id))
            assert token.entropy == row.entropy
            top = row.top(5)
            assert [each.token_id for each in token.top] == (
                top if token.token_id in top else [*top, token.token_id]
            )
            assert [each.logprob for each in token.top] == [row.logprob(each.token_id) for each in token.top]
            assert len(token.layers) == len(report.layer_names) == 4
            last = token.layers[-1]
            assert last.rank == token.rank and last.top == llm.tokenizer.token_text(top[0])
            assert last.logprob == pytest.approx(token.logprob, rel=1e-6, abs=1e-6)
            if token.position < len(prompt):
                assert token.kind == "prompt" and token.choice is None and token.top[0].processed is None
                continue
            assert token.kind == "drawn" and token.choice is not None and token.note
            states = dict(token.choice.states) or None
            again = explain_choice(
                row.logits, ids, params.replace(logprobs=0), params.seed or 0, sample.index, token.position,
                num_prompt=len(prompt), stop_ids=llm.settings["eos_ids"].value, states=states,
            )  # fmt: skip
            assert token.choice == again
            assert token.runner_up == (
                None if again.runner_up is None else llm.tokenizer.token_text(again.runner_up)
            )
            own = next(each for each in token.top if each.token_id == token.token_id)
            assert own.processed in (None, pytest.approx(again.logprob, abs=1e-9))
            assert token.seconds is not None and 0 < token.seconds < 600
    render(report)


def test_guidance_is_a_stage_like_others(llm: LLM, tmp_path: Path) -> None:
    chain = {"guidance_scale": 2.0, "negative_prompt": "A dull", "temperature": 1, "seed": 2}
    result = llm.generate(PROMPT, max_tokens=12, record=tmp_path / "run", **chain)
    report = of_run(read_run(tmp_path / "run"), llm, Wanted(top=3))
    assert not report.notes
    drawn = [token for token in report.branches[0].tokens if token.choice is not None]
    assert [token.choice.token_id for token in drawn if token.choice] == result.token_ids
    for token in drawn:
        assert token.choice is not None and token.choice.stages[0].name == "guidance"
        own = next(each for each in token.top if each.token_id == token.token_id)
        assert own.processed == pytest.approx(token.choice.logprob, abs=1e-9)


def test_tokens_that_had_been_guessed_are_marked(llm: LLM, tmp_path: Path) -> None:
    prompt = [65, 66, 67, 68] * 8
    plain = llm.generate(prompt, max_tokens=30, ignore_eos=True)
    result = llm.generate(
        prompt, max_tokens=30, ignore_eos=True, speculation="jacobi", record=tmp_path / "run"
    )
    assert result.token_ids == plain.token_ids
    run = read_run(tmp_path / "run")
    report = of_run(run, llm, Wanted(lens=False))
    assert not report.notes
    marked = ["from draft" in token.flags for token in report.branches[0].tokens[len(prompt) :]]
    assert marked == [token.from_draft for token in run.branches[0].tokens] and any(marked)


def test_samples_share_one_prompt_and_times_are_told_once(llm: LLM, tmp_path: Path) -> None:
    llm.generate(PROMPT, temperature=1, seed=1, n=3, max_tokens=4, record=tmp_path / "run")
    report = of_run(read_run(tmp_path / "run"), llm, Wanted(lens=False))
    assert [branch.name for branch in report.branches] == ["sample 0", "sample 1", "sample 2"]
    assert [branch.sibling for branch in report.branches] == [False, True, True]
    kinds = [[token.kind for token in branch.tokens].count("prompt") for branch in report.branches]
    assert kinds[0] > 1 and kinds[1:] == [0, 0] and not report.layer_names
    whats = [what for what, _ in report.timings]
    assert whats.count("in all") == 1 and any("forward pass" in what for what in whats)
    assert {setting.name: setting.value for setting in report.settings}["seed"] == 1
    assert sum(setting.name == "seed" for setting in report.settings) == 1


def test_windows_change_nothing(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where a choice depends on the choices before it."""
    llm.generate(PROMPT, record=tmp_path / "run", max_tokens=20, **CHAINS[2])
    run = read_run(tmp_path / "run")
    whole = of_run(run, llm, Wanted())
    monkeypatch.setattr(gather, "TOLD_AT_A_TIME", 3)
    lines: list[str] = []
    assert of_run(run, llm, Wanted(progress=lines.append)) == whole
    assert "text: tokens 19 to 20 of 20" in lines


def test_of_a_long_prompt_the_end_is_told_and_the_rest_is_owned_up_to(llm: LLM, tmp_path: Path) -> None:
    result = llm.generate(PROMPT * 2, max_tokens=3, ignore_eos=True, record=tmp_path / "run")
    num_prompt = len(result.prompt_token_ids)
    run = read_run(tmp_path / "run")
    whole, part = of_run(run, llm, Wanted()), of_run(run, llm, Wanted(prompt_tokens=4))
    (tokens,), (all_tokens,) = ([branch.tokens for branch in each.branches] for each in (part, whole))
    told = [token.position for token in tokens if token.logprob is not None]
    assert told == list(range(num_prompt - 4, num_prompt + 3))
    assert [token.position for token in tokens if token.layers] == told
    for token, other in zip(tokens, all_tokens, strict=True):
        assert token.token_id == other.token_id and (token.logprob is None or token == other)
    assert part.notes == (
        f"Text: of the prompt's {num_prompt} tokens the first {num_prompt - 4} are without probabilities.",
    )
    none = of_run(run, llm, Wanted(prompt_tokens=0)).branches[0].tokens
    assert [token.position for token in none if token.logprob is not None] == told[4:]


def test_a_context_that_slid(llm: LLM, tmp_path: Path) -> None:
    result = llm.generate(
        PROMPT, overflow="slide", slide_keep=3, temperature=1, seed=3, max_tokens=150, ignore_eos=True,
        record=tmp_path / "run",
    )  # fmt: skip
    run = read_run(tmp_path / "run")
    report = of_run(run, llm, Wanted(top=2))
    assert not report.notes and run.branches[0].drops
    tokens = report.branches[0].tokens[len(result.prompt_token_ids) :]
    assert [token.token_id for token in tokens] == result.token_ids
    assert [token.position for token in tokens] == [token.position for token in run.branches[0].tokens]
    assert max(token.position for token in tokens) < 96
    for token in tokens:
        assert token.choice is not None and token.choice.token_id == token.token_id
        assert token.layers[-1].rank == token.rank
    assert len(Page(render(report)).data["branches"][0]["positions"]) == len(report.branches[0].tokens)


def test_a_generation_with_all_its_branches(llm: LLM) -> None:
    root = llm.begin(PROMPT, temperature=0.9, seed=4, ignore_eos=True)
    root.run(5)
    root.force(70)
    root.append([71, 72])
    fork = root.fork(seed=8)
    fork.branch.label = "the other"
    fork.run(4)
    root.run(2)
    deep = fork.fork(seed=9)
    deep.rewind(2).run(3)
    report = of_generation(fork, llm, Wanted())
    assert [(branch.parent, branch.name) for branch in report.branches] == [
        (None, "text"), (0, "the other"), (1, "branch 2")
    ]  # fmt: skip
    texts: list[list[int]] = []
    for branch, generation in zip(report.branches, (root, fork, deep), strict=True):
        before = [] if branch.parent is None else texts[branch.parent][: branch.forked_at]
        texts.append(before + [token.token_id for token in branch.tokens])
        assert texts[-1] == generation.token_array.tolist()
        logits = llm.logits(texts[-1])
        kinds = {record.position: record.kind for record in generation.records}
        for token in branch.tokens:
            assert token.kind == kinds.get(token.position, "prompt")
            if token.position:
                assert token.logprob == Distribution(logits[token.position - 1]).logprob(token.token_id)
            assert (token.choice is not None) == (token.kind == "drawn")
    assert report.notes == (gather.PRESENT,)
    assert [token.kind for token in report.branches[0].tokens[-5:]] == [
        "forced",
        "given",
        "given",
        "drawn",
        "drawn",
    ]
    forced = report.branches[0].tokens[-5]
    assert "by the caller" in forced.note and "forced" in forced.flags


def test_choices_of_other_parameters_are_not_explained_and_that_is_said(llm: LLM) -> None:
    generation = llm.begin(PROMPT, temperature=1.5, seed=4, ignore_eos=True)
    generation.run(12)
    generation.configure(temperature=0)
    report = of_generation(generation, llm, Wanted(lens=False))
    drawn = [token for token in report.branches[0].tokens if token.kind == "drawn"]
    greedy = [token.rank == 0 for token in drawn]
    assert 0 < sum(greedy) < 12 or not any(greedy)
    assert [token.choice is not None for token in drawn] == greedy
    assert f"{12 - sum(greedy)} of its tokens are not what these parameters choose here" in report.notes[1]


def test_names_of_branches() -> None:
    from pellucid.glass.run import RunBranch
    from pellucid.report.told import branch_names

    def branch(
        index: int, request: int = 0, sample: int = 0, parent: int | None = None, at: int = 2
    ) -> RunBranch:
        made = RunBranch(index, request, None, [1, 2], [], sample_index=sample)
        made.parent, made.forked_at = parent, None if parent is None else at
        return made

    assert branch_names([branch(0)]) == ["text"]
    assert branch_names([branch(0), branch(1, 0, 0, 0, 5)]) == ["text", "branch 1"]
    assert branch_names([branch(0), branch(1, 0, 0, 0, 2)]) == ["branch 0", "branch 1"]
    assert branch_names([branch(0), branch(1, 0, 1, 0, 2)]) == ["sample 0", "sample 1"]
    assert branch_names([branch(0), branch(1, 1), branch(2, 1, 1, 1)]) == [
        "request 0",
        "request 1, sample 0",
        "request 1, sample 1",
    ]


def test_a_result_and_its_run_file_say_the_same(llm: LLM, tmp_path: Path) -> None:
    result = llm.generate(PROMPT, temperature=1, seed=2, n=2, max_tokens=8, record=tmp_path / "run")
    first = of_result(result, llm, Wanted())
    second = of_run(read_run(tmp_path / "run"), llm, Wanted())
    for a, b in zip(first.branches, second.branches, strict=True):
        assert (a.name, a.parent, a.forked_at, a.sibling, a.ended) == (
            b.name,
            b.parent,
            b.forked_at,
            b.sibling,
            b.ended,
        )
        for x, y in zip(a.tokens, b.tokens, strict=True):
            assert (x.token_id, x.logprob, x.top, x.choice, x.layers) == (
                y.token_id,
                y.logprob,
                y.top,
                y.choice,
                y.layers,
            )


def test_a_file_that_a_kill_has_cut(llm: LLM, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    llm.generate(PROMPT, max_tokens=12, ignore_eos=True, record=whole)
    full = of_run(read_run(whole), llm, Wanted())
    data = whole.read_bytes()
    whole.write_bytes(data[: int(len(data) * 0.8)])
    run = read_run(whole)
    cut = of_run(run, llm, Wanted())
    tokens, all_tokens = cut.branches[0].tokens, full.branches[0].tokens
    assert len(tokens) < len(all_tokens)
    for token, other in zip(tokens, all_tokens, strict=False):
        assert (token.token_id, token.logprob, token.layers) == (other.token_id, other.logprob, other.layers)
    assert any("is cut" in note for note in cut.notes) == bool(run.num_cut_bytes)
    assert cut.branches[0].ended == ""


def test_conditions_that_change_numbers_are_told(path: Path, tmp_path: Path) -> None:
    with LLM(path, num_threads=1, kv_format="q8_0") as other:
        other.generate(PROMPT, max_tokens=3, record=tmp_path / "run")
    with LLM(path, num_threads=1) as llm:
        report = of_run(read_run(tmp_path / "run"), llm, Wanted(lens=False))
    assert "KV format: q8_0 then, f32 now" in report.notes[-1]


def test_report_takes_what_there_is_and_refuses_the_rest(llm: LLM, path: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "run", tmp_path / "page.html"
    result = llm.generate(PROMPT, max_tokens=3, record=file)
    html = llm.report(file, page, top=3)
    assert page.read_text(encoding="utf-8") == html == llm.report(read_run(file), top=3)
    assert not list(tmp_path.glob(".*")), "nothing half written is left"
    assert "Once upon a time" in llm.report(result, lens=False)
    assert len(Page(llm.report(llm.begin("Hello"))).spans) == len(llm.tokenizer.encode("Hello"))
    with LLM(path, num_threads=1) as other, pytest.raises(UsageError, match="of another LLM"):
        other.report(llm.begin("Hello"))
    for wrong, message in [
        ({"top": 0}, "top: expected"),
        ({"lens": 1}, "lens"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
    ]:
        with pytest.raises(UsageError, match=message):
            llm.report(result, **wrong)
    with pytest.raises(UsageError, match="expected a Generation"):
        llm.report(7)
    with pytest.raises(RunFileError):
        llm.report(page)
    with pytest.raises(OSError, match="directory"):
        llm.report(result, tmp_path)
    assert len(repr(html)) < 100 and isinstance(html, str)
    with pytest.raises(FileNotFoundError, match="its folder is not there") as missing:
        llm.report(result, tmp_path / "nowhere" / "page.html")
    assert missing.value.filename == str(tmp_path / "nowhere" / "page.html")


def test_a_page_that_does_not_fit_names_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pellucid.front.reporting import write_page

    def full(self: Path, *_: Any, **__: Any) -> int:
        self.write_bytes(b"af")  # as far as there was room
        raise OSError(28, "No space left on device")

    page = tmp_path / "page.html"
    page.write_text("before")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_page(page, "after")
    assert error.value.filename == str(page)
    assert page.read_text() == "before" and os.listdir(tmp_path) == ["page.html"]


def test_a_run_of_another_model_is_refused(llm: LLM, tmp_path: Path) -> None:
    other = make(tmp_path, "qwen3", "gguf", "F32")
    with LLM(other, num_threads=1) as wrong:
        result = wrong.generate(PROMPT, max_tokens=2, record=tmp_path / "run")
    with pytest.raises(RunFileError, match="another model"):
        llm.report(tmp_path / "run")
    for ask in (llm.report, llm.why, llm.records):
        with pytest.raises(UsageError, match="this result is of another model"):
            ask(result)
    with LLM(llm.settings["model"].value, num_threads=1, kv_format="q8_0") as other:
        result = other.generate(PROMPT, max_tokens=2)
    with pytest.raises(UsageError, match="of another KV format: 'q8_0', here 'f32'"):
        llm.why(result)


def test_a_lens_cell_is_what_the_lens_says(llm: LLM) -> None:
    result = llm.generate(PROMPT, max_tokens=6, temperature=1, seed=1)
    ids = result.prompt_token_ids + result.token_ids
    lens = llm.lens(ids, k=1)
    for token in of_result(result, llm, Wanted()).branches[0].tokens[1:]:
        row = token.position - 1
        assert int(lens.tokens[row]) == token.token_id
        assert [cell.rank for cell in token.layers] == lens.ranks[row].tolist()
        assert np.allclose([cell.logprob for cell in token.layers], lens.logprobs[row])
        assert [cell.top for cell in token.layers] == [
            llm.tokenizer.token_text(i) for i in lens.top_ids[row, :, 0].tolist()
        ]
        assert all(math.isfinite(cell.top_logprob) for cell in token.layers)


def test_a_generation_that_was_recorded(llm: LLM, tmp_path: Path) -> None:
    """Its file holds each choice's parameters, so that all of them are explained, also after they were changed."""
    root = llm.begin(PROMPT, temperature=0.9, seed=4, ignore_eos=True, record=tmp_path / "run")
    root.run(5)
    root.force(70)
    fork = root.fork(seed=8)
    fork.run(4)
    fork.rewind(2).configure(temperature=1.4, top_k=9)
    fork.run(3)
    root.rewind(3).force(80)  # before the fork
    root.configure(temperature=0)
    root.run(2)
    live, read = of_generation(root, llm, Wanted()), of_run(read_run(tmp_path / "run"), llm, Wanted())
    assert not read.notes and live.notes[0] == gather.PRESENT
    for a, b, generation in zip(whole(live), whole(read), (root, fork), strict=True):
        assert [token.token_id for token in b] == generation.token_array.tolist()
        for x, y in zip(a, b, strict=True):
            assert (x.token_id, x.kind, x.logprob, x.layers) == (y.token_id, y.kind, y.logprob, y.layers)
            assert (y.choice is not None) == (y.kind == "drawn")
            assert x.choice is None or x.choice.token_id == y.token_id
    names = [setting.name for setting in read.settings]
    assert names.count("temperature") > 1 and names.count("prefill_chunk") == 1


def whole(report: Report) -> list[list[TokenView]]:
    """All tokens of each branch, its parent's too."""
    found: list[list[TokenView]] = []
    for branch in report.branches:
        before = [] if branch.parent is None else found[branch.parent][: branch.forked_at]
        found.append([*before, *branch.tokens])
    return found
