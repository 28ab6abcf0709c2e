"""Search and beams against brute force: every output of a tiny model, listed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pellucid import LLM
from pellucid.errors import UsageError

PROMPT = [5, 7, 3]
ALLOWED = [1, 4, 5, 6, 9]  # 1 ends: the vocabulary of every search here, so that all outputs can be listed
T = 4


class Only:
    """A constraint, as a table: tokens of ALLOWED; the end token not first, and no token twice in a row."""

    def __init__(self, path=()):
        self.path = path

    def allowed(self):
        free = [t for t in ALLOWED if not self.path or t != self.path[-1]]
        return np.array([t for t in free if t != 1 or self.path], np.int32)

    def advance(self, token_id):
        self.path = (*self.path, token_id)

    def copy(self):
        return Only(self.path)


@pytest.fixture(scope="module")
def model(tiny_path):
    with LLM(tiny_path, backend="cpu", num_threads=2) as loaded:
        yield loaded


KINDS = {
    "banned": ({"allowed_ids": ALLOWED}, None, 0, False),
    "tempered": ({"allowed_ids": ALLOWED, "temperature": 0.7, "top_k": 3}, None, 0, False),
    "minimum": ({"allowed_ids": ALLOWED}, None, 2, False),
    "ending": ({"allowed_ids": ALLOWED}, None, 0, True),
    "constraint": ({}, Only(), 0, False),
    "guided": ({"allowed_ids": ALLOWED, "guidance_scale": 1.7, "negative_prompt": [8, 2]}, None, 0, False),
}


def next_logprobs(model, path, overrides, constraint):
    """{token: log-probability} after PROMPT + path, stated in NumPy."""
    logits = model.logits([*PROMPT, *path])[-1].astype(np.float64)
    if "guidance_scale" in overrides:
        other = model.logits([*overrides["negative_prompt"], *path])[-1].astype(np.float64)
        logits, other = (row - np.log(np.exp(row).sum()) for row in (logits, other))
        logits = other + overrides["guidance_scale"] * (logits - other)
    if "allowed_ids" in overrides:
        logits = np.where(np.isin(np.arange(len(logits)), ALLOWED), logits, -np.inf)
    logits = logits / overrides.get("temperature", 1.0)
    if "top_k" in overrides:
        logits[np.argsort(-logits)[overrides["top_k"] :]] = -np.inf
    logprobs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    kept = ALLOWED
    if constraint is not None:
        state = constraint.copy()
        for token in path:
            state.advance(token)
        kept = state.allowed().tolist()
    return {t: float(logprobs[t]) for t in kept if logprobs[t] > -np.inf}


@pytest.fixture(scope="module")
def every(model):
    """kind -> [(score, path)] of all outputs, the best first."""
    made = {}

    def get(kind):
        if kind not in made:
            overrides, constraint, least, must_end = KINDS[kind]
            found, open_paths = [], [((), 0.0)]
            while open_paths:
                path, score = open_paths.pop()
                for token, logprob in next_logprobs(model, path, overrides, constraint).items():
                    child = (*path, token)
                    if token == 1:
                        if len(path) >= least:
                            found.append((score + logprob, child))
                    elif len(child) < T:
                        open_paths.append((child, score + logprob))
                    elif not must_end:
                        found.append((score + logprob, child))
            made[kind] = sorted(found, key=lambda each: (-each[0], each[1]))
        return made[kind]

    return get


def run(model, kind, **more):
    overrides, constraint, least, must_end = KINDS[kind]
    return model.search(
        PROMPT, max_tokens=T, min_tokens=least, must_end=must_end, constraint=constraint, **overrides, **more
    )


def agree(outputs, expected, divisor=lambda path: 1, within=1e-9):
    assert [o.token_ids for o in outputs] == [path for _, path in expected]
    for output, (score, path) in zip(outputs, expected, strict=True):
        assert output.logprob == pytest.approx(score, abs=within)
        assert output.value == pytest.approx(score / divisor(path), abs=within)
        assert output.finish_reason == ("eos" if path[-1] == 1 else "length")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 7])
def test_the_n_best_of_all_outputs(model, every, kind, n):
    result = run(model, kind, n=n)
    assert result.certified and result.ended_by == "proof" and result.gap == 0
    within = 1e-5 if kind in ("tempered", "guided") else 1e-9  # logits are rounded to float32 after a stage
    agree(result.outputs, every(kind)[:n], within=within)
    if len(every(kind)) > n:
        assert every(kind)[n][0] <= result.upper_bound + within <= result.outputs[-1].value + 2 * within
    assert result.certificate.verify(model)


def test_more_outputs_than_there_are(model, every):
    result = run(model, "constraint", n=10_000)
    agree(result.outputs, every("constraint"))
    assert result.upper_bound == -np.inf
    assert len(repr(result.certificate)) < 100 < len(result.certificate.opened) * 10
    assert result.certificate.verify(model)


def test_per_token_and_per_length(model, every):
    expected = sorted(every("banned"), key=lambda each: (-each[0] / len(each[1]), each[1]))[:5]
    result = run(model, "banned", n=5, objective="per_token")
    agree(result.outputs, expected, divisor=len)
    assert result.certificate.verify(model)
    lengths = run(model, "banned", n=2, objective="per_length")
    for length in range(1, T + 1):
        best = [each for each in every("banned") if len(each[1]) == length][:2]
        agree([o for o in lengths.outputs if len(o.token_ids) == length], best)
    assert lengths.certificate.verify(model)


def test_neither_the_batch_nor_eviction_changes_the_result(model):
    expected = run(model, "banned", n=3, batch_size=1)
    for more in ({"batch_size": 4}, {"batch_size": 16}, {"batch_size": 4, "most_held": 1}):
        result = run(model, "banned", n=3, **more)
        assert result.outputs == expected.outputs
        assert result.certificate.outputs == expected.certificate.outputs
    assert expected.work.rows < len(PROMPT) + 2 * 85  # opened once, the first beams kept: one row a prefix


def test_threads_do_not_change_the_result(model, tiny_path):
    with LLM(tiny_path, num_threads=1) as other:
        assert run(other, "tempered", n=5).outputs == run(model, "tempered", n=5).outputs


@pytest.mark.parametrize("kind", KINDS)
def test_mass_is_conserved_and_bounds_close(model, every, kind):
    from pellucid.decoding.exact import ExactSearch
    from pellucid.decoding.goal import Goal
    from pellucid.search.space import space_of
    from pellucid.search.tree import HeldTree

    overrides, constraint, least, must_end = KINDS[kind]
    space, _ = space_of(model, PROMPT, None, T, least, constraint, None, overrides)
    tree = HeldTree(model, space)
    search = ExactSearch(tree, Goal(T, n=2), batch=3, must_end=must_end, ranks=2)
    lower, upper = -np.inf, 0.0
    while not search.done:
        search.step()
        total = search.completed_mass + search.closed_mass + search.open_mass()
        assert total == pytest.approx(1, abs=1e-6)
        bounds = search.bounds
        assert bounds.upper <= upper and bounds.lower >= lower
        if bounds.lower == -np.inf:
            assert bounds.upper >= every(kind)[1][0] - 1e-9
        lower, upper = bounds.lower, bounds.upper
    assert [each.path for each in search.goal.outputs()] == [path for _, path in every(kind)[:2]]
    assert not tree._held, "a node whose subtree is closed kept its keys and values"


def test_a_budget_ends_with_a_true_bound(model, every):
    for most in (1, 2, 5):
        result = run(model, "banned", max_nodes=most, batch_size=1, num_beams=0, objective="per_token")
        if result.certified:
            continue
        assert result.nodes == most and result.ended_by == "max_nodes" and result.certificate is None
        best = max(score / len(path) for score, path in every("banned"))
        assert result.outputs[0].value <= best + 1e-12 <= result.outputs[0].value + result.gap + 1e-9


def test_memory_is_a_budget_and_its_estimate_is_true(model):
    import tracemalloc

    from toy_tree import ToyTree

    from pellucid.decoding.exact import ExactSearch
    from pellucid.decoding.goal import Goal

    flat = {"temperature": 3.0, "max_tokens": 8, "num_beams": 1, "batch_size": 4}
    result = model.search(PROMPT, max_memory=20_000, **flat)
    assert result.ended_by == "max_memory" and not result.certified and result.gap > 0
    assert 1 < result.nodes < 100
    tree = ToyTree(1, 50, sharpness=0.5, end=-8.0)
    tree._note = lambda paths: None
    search = ExactSearch(tree, Goal(20), batch=16)
    tracemalloc.start()
    try:
        while search.nodes < 2000:
            search.step()
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.5 * used < search.num_bytes < 2 * used


def test_greedy_and_beam_are_judged(model, every):
    result = run(model, "banned")
    greedy = model.generate(PROMPT, max_tokens=T, allowed_ids=ALLOWED).token_ids
    assert list(result.greedy.token_ids[: len(greedy)]) == greedy
    best = every("banned")[0][1]
    assert result.greedy_error == (result.greedy.token_ids != best)
    assert result.beam_error == (result.beam.token_ids != best)
    empty = next(score for score, path in every("banned") if path == (1,))
    assert result.probability_empty == pytest.approx(np.exp(empty))


@pytest.mark.parametrize("change", ["worse", "hole", "value"])
def test_a_false_certificate_is_refused(model, change):
    certificate = run(model, "banned", n=2).certificate
    if change == "worse":
        false = dataclasses.replace(certificate, outputs=certificate.outputs[1:], n=1)
    elif change == "hole":
        false = dataclasses.replace(certificate, opened=certificate.opened[:1])
    else:
        (value, path), other = certificate.outputs
        false = dataclasses.replace(certificate, outputs=((value + 1e-9, path), other))
    verification = false.verify(model)
    assert not verification and verification.problem


def test_a_hole_beside_the_outputs_is_found(model):
    """A prefix that was not opened, and below which something better could be, though every output's own was."""
    certificate = run(model, "ending", n=2).certificate
    needed = {path[:depth] for _, path in certificate.outputs for depth in range(len(path))}
    problems = []
    for hole in [path for path in certificate.opened if path not in needed][:12]:
        opened = tuple(path for path in certificate.opened if path[: len(hole)] != hole)
        problems.append(dataclasses.replace(certificate, opened=opened).verify(model).problem)
    assert any("could lead to something better, and was not opened" in problem for problem in problems)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_full_beam_is_exact(model, every, length_penalty):
    result = model.beam_search(
        PROMPT,
        max_tokens=T,
        num_beams=400,
        early_stopping="never",
        length_penalty=length_penalty,
        allowed_ids=ALLOWED,
    )
    expected = sorted(every("banned"), key=lambda each: (-each[0] / len(each[1]) ** length_penalty, each[1]))
    agree(result.outputs, expected[:400], divisor=lambda path: len(path) ** length_penalty)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"objective": "reward"}, "can rise"),
        ({"xtc_probability": 0.5, "temperature": 1.0}, "chance"),
        ({"mirostat": 2, "temperature": 1.0}, "drawn before"),
        ({"stop": "x"}, "stop string"),
        ({"speculation": "auto"}, "guesses none"),
        ({"min_tokens": 9}, "more than max_tokens"),
        ({"n": 0}, "at least 1"),
        ({"max_seconds": 0}, "above 0"),
        ({"max_seconds": "1"}, "above 0"),
        ({"max_seconds": float("nan")}, "above 0"),
        ({"must_end": "no"}, "must_end: expected True or False"),
    ],
)
def test_what_cannot_be_searched_is_refused(model, more, said):
    with pytest.raises(UsageError, match=said):
        model.search(PROMPT, max_tokens=T, **more)
