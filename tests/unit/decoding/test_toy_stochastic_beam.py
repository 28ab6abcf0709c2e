"""Stochastic beams against sampling without replacement, enumerated."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from toy_tree import ToyTree

from pellucid.decoding.stochastic_beam import StochasticBeam, given_maximum

SEEDS = range(3000)  # fixed: the draws are a function of them, so no run of these tests differs from another


def inclusion(probabilities, k):
    """Of each item: the probability to be among the first k drawn one after the other without replacement."""
    included = np.zeros(len(probabilities))
    for order in permutations(range(len(probabilities)), k):
        left, chance = 1.0, 1.0
        for item in order:
            chance *= probabilities[item] / left
            left -= probabilities[item]
        included[list(order)] += chance
    return included


@pytest.fixture(scope="module")
def drawn():
    """(outputs of the toy: their log-probabilities, the draws of every seed)"""
    tree = ToyTree(seed=5, vocabulary=3, sharpness=1.2, end=0.5)
    every = tree.outputs(3)
    return every, [StochasticBeam(3, 3, seed).run(tree) for seed in SEEDS]


def test_the_samples_are_different_outputs_with_their_probabilities(drawn):
    every, runs = drawn
    for run in runs:
        assert len({draw.path for draw in run}) == 3
        assert [d.perturbed for d in run] == sorted((d.perturbed for d in run), reverse=True)
        for draw in run:
            assert draw.logprob == pytest.approx(every[draw.path], abs=1e-12)


def test_inclusion_probabilities_are_those_of_enumeration(drawn):
    every, runs = drawn
    paths = list(every)
    expected = inclusion(np.exp(list(every.values())), 3)
    assert expected.sum() == pytest.approx(3)
    counts = np.array([sum(any(draw.path == path for draw in run) for run in runs) for path in paths])
    deviation = (counts / len(runs) - expected) / np.sqrt(expected * (1 - expected) / len(runs))
    assert np.abs(deviation).max() < 4.0


def test_the_first_is_an_ordinary_sample(drawn):
    every, runs = drawn
    expected = np.exp(list(every.values())) * len(runs)
    counts = np.array([sum(run[0].path == path for run in runs) for path in every])
    chi_square = ((counts - expected) ** 2 / expected).sum()
    degrees = len(every) - 1
    assert abs(chi_square - degrees) < 4.5 * np.sqrt(2 * degrees)


def test_the_weights_give_an_unbiased_estimate(drawn):
    every, runs = drawn
    exact = sum(np.exp(logprob) * len(path) for path, logprob in every.items())
    estimates = np.array([sum(draw.weight * len(draw.path) for draw in run) for run in runs])
    error = estimates.std() / np.sqrt(len(runs))
    assert abs(estimates.mean() - exact) < 4 * error
    totals = np.array([sum(draw.weight for draw in run) for run in runs])
    assert abs(totals.mean() - 1) < 4 * totals.std() / np.sqrt(len(runs))


def test_all_outputs_where_more_are_asked_for():
    tree = ToyTree(seed=2, vocabulary=3)
    every = tree.outputs(3)
    run = StochasticBeam(500, 3, 1).run(tree)
    assert {draw.path for draw in run} == set(every)
    for draw in run:
        assert draw.weight == pytest.approx(np.exp(every[draw.path]))
    assert sum(draw.weight for draw in run) == pytest.approx(1)


def test_a_wider_beam_goes_on_where_a_narrow_one_ends():
    """The noise of a node does not depend on the width: k samples are the first of k + 1."""
    tree = ToyTree(seed=4, vocabulary=6)
    for seed in range(50):
        narrow, wide = (StochasticBeam(width, 5, seed).run(tree) for width in (3, 8))
        assert [draw.path for draw in narrow] == [draw.path for draw in wide[:3]]
        assert [draw.perturbed for draw in narrow] == [draw.perturbed for draw in wide[:3]]


def test_one_pass_a_step_and_what_is_left_is_given_back():
    tree = ToyTree(seed=1, vocabulary=8, end=-50.0)
    StochasticBeam(5, 6, 3).run(tree)
    assert tree.passes == 6 and len(tree.opened) <= 1 + 5 * 6
    assert len(set(tree.released)) == len(tree.released) and set(tree.released) <= set(tree.opened)


def test_noise_that_was_given_a_maximum_keeps_its_order_far_below():
    noisy = np.array([-40.0, -40.0 - 1e-9, -300.0, -np.inf])
    moved = given_maximum(noisy, -35.5)
    assert moved[0] == -35.5 and np.all(np.diff(moved[:3]) < 0) and moved[3] == -np.inf
