"""Beams on models whose outputs can all be listed: against brute force, and against each other."""

from __future__ import annotations

import math

import pytest
from toy_tree import END, ToyTree

from pellucid.decoding.beam import BeamRules, BeamSearch
from pellucid.decoding.best_first_beam import BestFirstBeam
from pellucid.decoding.diverse_beam import DiverseBeamSearch

TOYS = [
    {"vocabulary": 4, "sharpness": 1.0},
    {"vocabulary": 9, "sharpness": 2.5},
    {"vocabulary": 6, "sharpness": 1.5, "end": 2.0},
    {"vocabulary": 12, "sharpness": 1.0, "end": -1.0},
]


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0, -0.5])
@pytest.mark.parametrize("toy", TOYS[:3], ids=str)
def test_a_beam_as_wide_as_the_tree_is_brute_force(toy, length_penalty):
    for seed in range(5):
        tree = ToyTree(seed, **toy)
        most = 3 if tree.vocabulary > 6 else 4
        every = tree.outputs(most)
        rules = BeamRules(len(every), most, 1, length_penalty, "never")
        found, _ = BeamSearch(rules).run(tree)
        values = {path: score / len(path) ** length_penalty for path, score in every.items()}
        assert {each.path for each in found} == set(every)
        for each in found:
            assert each.value == pytest.approx(values[each.path], abs=1e-12)
        assert [each.value for each in found] == sorted((each.value for each in found), reverse=True)
        best_first = BestFirstBeam(rules).run(ToyTree(seed, **toy))
        assert best_first == found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("toy", TOYS, ids=str)
def test_best_first_finds_what_the_beam_finds(toy, width, length_penalty, ties):
    plain_rows = best_first_rows = 0
    for seed in range(6):
        plain, fast = ToyTree(seed, ties=ties, **toy), ToyTree(seed, ties=ties, **toy)
        rules = BeamRules(width, 6, 1, length_penalty, "never")
        found, _ = BeamSearch(rules).run(plain)
        assert BestFirstBeam(rules).run(fast) == found  # paths, scores and values, to the last bit
        if length_penalty >= 0 and not ties:
            assert set(fast.opened) <= set(plain.opened), "a row that the plain beam does not compute"
        plain_rows, best_first_rows = plain_rows + len(plain.opened), best_first_rows + len(fast.opened)
    if length_penalty == 0 and not ties and width > 1 and toy.get("end", 0) > 0:  # outputs end early
        assert best_first_rows < plain_rows


def stated_diverse(tree, groups, width, diversity, most_tokens, length_penalty):
    """Diverse beam search over whole distributions: every candidate of every group is listed and penalised."""
    running = [[(0.0, ())] for _ in range(groups)]
    finished = [[] for _ in range(groups)]
    over = [False] * groups
    for length in range(1, most_tokens + 1):
        taken = []
        for g in range(groups):
            if over[g]:
                continue
            candidates = []
            for beam, (score, path) in enumerate(running[g]):
                for token, logprob in enumerate(tree.logprobs(path).tolist()):
                    less = diversity * taken.count(token)
                    candidates.append((score + logprob - less, beam, (*path, token)))
            candidates.sort(key=lambda each: (-each[0], each[1], each[2]))
            for score, _, path in candidates[:width]:
                if path[-1] == END or length == most_tokens:
                    finished[g].append((score / length**length_penalty, path))
            finished[g] = sorted(finished[g], key=lambda each: -each[0])[:width]
            going = [(score, path) for score, _, path in candidates if path[-1] != END]
            running[g] = going[:width]
            taken += [path[-1] for _, path in running[g]]
            full = len(finished[g]) == width
            best = running[g][0][0] / length**length_penalty
            over[g] = length == most_tokens or (full and best <= finished[g][-1][0])
    return finished


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0, 50.0])
@pytest.mark.parametrize(("groups", "width"), [(2, 1), (2, 2), (4, 1), (3, 3)])
@pytest.mark.parametrize("toy", TOYS[:3], ids=str)
def test_diverse_beams_as_stated(toy, groups, width, diversity, length_penalty):
    for seed in range(4):
        tree = ToyTree(seed, **toy)
        expected = stated_diverse(tree, groups, width, diversity, 6, length_penalty)
        rules = BeamRules(width, 6, 1, length_penalty, False)
        found, steps = DiverseBeamSearch(rules, groups, diversity).run(tree)
        assert tree.passes == max(len(each) for each in steps), "groups share their passes"
        for ours, theirs in zip(found, expected, strict=True):
            assert [each.path for each in ours] == [path for _, path in theirs]
            for each, (value, path) in zip(ours, theirs, strict=True):
                assert each.value == pytest.approx(value, abs=1e-9)
                exact = math.fsum(tree.logprobs(path[:i])[token] for i, token in enumerate(path))
                assert each.score == pytest.approx(exact, abs=1e-9), "the score has no penalty in it"


def test_one_group_is_the_plain_beam_and_far_groups_differ():
    rules = BeamRules(3, 6, 1, 1.0, False)
    plain, _ = BeamSearch(rules).run(ToyTree(3, 7))
    found, _ = DiverseBeamSearch(rules, 1, 0.0).run(ToyTree(3, 7))
    assert found == [plain]
    firsts = DiverseBeamSearch(BeamRules(1, 6, 1, 1.0, False), 4, 1e3).run(ToyTree(3, 7, end=-9.0))[0]
    assert len({group[0].path[0] for group in firsts}) == 4, "no two groups begin with one token"


@pytest.mark.parametrize("width", [1, 4])
def test_a_beam_shares_its_passes(width):
    tree = ToyTree(1, 8)
    _, steps = BeamSearch(BeamRules(width, 6, 1, 1.0, False)).run(tree)
    assert tree.passes == len(steps)
