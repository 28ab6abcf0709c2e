"""How many drafts: the arithmetic of costs and chances, with costs given instead of measured."""

from __future__ import annotations

import random

import pytest

from pellucid.decoding.drafts.base import Draft
from pellucid.decoding.drafts.corpus import BORDER, Corpus, CorpusDrafter
from pellucid.decoding.drafts.costs import LASTS, UNCOUNTED, PassCosts
from pellucid.decoding.drafts.policy import LEAST_GAIN, LENGTHS, Policy
from pellucid.decoding.speculative import Drafting, Speculative
from pellucid.sampling.params import SamplingParams


def costs_of(curve, rows=1):
    costs = PassCosts()
    for _ in range(UNCOUNTED + 3):
        for i, seconds in enumerate(curve, 1):
            costs.note(i, seconds)
    costs.rows = rows
    return costs


LINEAR = [float(i) for i in range(1, 33)]
FLAT = [1 + 0.03 * i for i in range(32)]


def taught(policy, source, confidence, chance, rng, rounds=400, length=8):
    for _ in range(rounds):
        right = [rng.random() < chance for _ in range(length)]
        policy.note(source, confidence, [1] * length, [1 if r else 2 for r in right])
    return policy


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.9, 1.0])
def test_where_a_row_costs_a_pass_nothing_is_drafted(chance):
    policy = taught(Policy(costs_of(LINEAR), 15), "context", 4, chance, random.Random(1))
    assert policy.plan("context", 4, 15).length == 0 and policy.hopeless


def test_where_rows_are_free_as_much_as_is_likely_to_be_right():
    rng, costs = random.Random(2), costs_of(FLAT)
    lengths = [
        taught(Policy(costs, 15), "context", 4, chance, rng).plan("context", 4, 15).length
        for chance in (0.0, 0.5, 0.8, 1.0)
    ]
    assert lengths[0] == 0 and lengths == sorted(lengths) and 2 <= lengths[1] <= 6 and lengths[3] == 15
    assert Policy(costs, 4).plan("grammar", 0, 15).length == 4, "never more than max_drafts"
    assert Policy(costs, 15).plan("grammar", 0, 3).length == 3, "nor than there are"


def test_the_plan_is_the_best_quotient():
    """Against all lengths, tried one by one, with the rates that the policy has."""
    rng = random.Random(3)
    for _ in range(100):
        curve = [1.0]
        while len(curve) < 32:
            curve.append(curve[-1] + rng.choice([0.05, 0.1, 0.6]))
        policy = taught(Policy(costs_of(curve), 15), "context", 4, rng.random(), rng, rounds=30)
        first, rest = policy._rate("context", 4).value, policy._rest_of("context").value
        gains = {0: 1.0}
        for k in [k for k in LENGTHS if k < 15] + [15]:
            gains[k] = (1 + sum(first * rest**i for i in range(k))) / curve[k]
        best = max(gains, key=lambda k: (gains[k], -k))
        plan = policy.plan("context", 4, 15)
        if gains[best] > LEAST_GAIN:
            assert plan.length == best and plan.gain == pytest.approx(gains[best])
        else:
            assert plan.length == 0


def test_a_policy_that_has_stopped_begins_again():
    """Guesses that are not checked teach by the token that comes."""
    policy = taught(Policy(costs_of([1, 1.5, 1.9, *LINEAR[2:]]), 15), "context", 4, 0.0, random.Random(4))
    assert policy.plan("context", 4, 15).length == 0
    for _ in range(60):
        policy.note("context", 4, [7, 7, 7], [7])
    assert policy.plan("context", 4, 15).length > 0


def test_a_full_batch_is_not_drafted_for():
    """With many sequences, rows cost what they give, even if every guess is right."""
    curve = [1 + 0.3 * i for i in range(80)]
    costs = costs_of(curve, rows=1)
    assert not Policy(costs, 15).hopeless
    costs.rows = 60
    assert Policy(costs, 15).hopeless


def test_costly_guesses_are_part_of_the_cost():
    policy = Policy(costs_of(FLAT), 8)
    cheap, dear = policy.plan("model", 0, 8, 0.01), policy.plan("model", 0, 8, 0.9)
    assert cheap.length > 0 and dear.length == 0


class Dear:
    """A drafter that takes time, so it is asked for what is to be checked alone."""

    name, costly, seconds_each = "model", True, 0.0

    def __init__(self, ids):
        self.ids, self.asked = ids, []

    def draft(self, history, most):
        self.asked.append(most)
        return Draft(self.ids[:most])


@pytest.mark.parametrize("past", [[1, 2, 3, 1], [1, 2, 3]])
def test_a_costly_guess_that_was_asked_for_is_checked(past):
    """Whether or not the text itself has a guess, which is worth less."""
    dear, params = Dear([7] * 8), SamplingParams(speculation="auto", max_drafts=8)
    strategy = Speculative(params, 0, Drafting(costs_of(FLAT), 100, lambda params, seed: [dear]))
    drafts = strategy.propose(Past(past))
    assert len(drafts) == dear.asked[0] > 0 and set(drafts) == {7}
    assert strategy.source(0) == "model"
    dear.ids = []
    alone = Speculative(params, 0, Drafting(costs_of(FLAT), 100))
    assert strategy.propose(Past(past)) == alone.propose(Past(past)), "the text's own, where it has one"
    assert strategy.source(0) == alone.source(0)


def test_a_source_without_a_guess_hides_nobodys(monkeypatch):
    """What an earlier output suggests, and is not checked, teaches too where the text has nothing to say."""
    corpus = Corpus(100)
    corpus.add([5, 6, 7, 8])
    drafting = Drafting(costs_of([1 + 0.6 * i for i in range(32)]), 100, lambda *_: [CorpusDrafter(corpus)])
    strategy = Speculative(SamplingParams(speculation="auto"), 0, drafting)
    monkeypatch.setattr(Policy, "hopeless", False)
    before = strategy._policy._rate("corpus", 2).value
    assert strategy.propose(Past([5, 6])) == [] and strategy.source(0) == "corpus"
    strategy.learn(0, [7])
    assert strategy._policy._rate("corpus", 2).value > before


def test_costs_between_measurements_and_out_of_date():
    costs = PassCosts()
    assert costs.seconds(1) == 1 and costs.seconds(4) > costs.seconds(2) > 1, "assumed, in passes"
    for _ in range(UNCOUNTED):
        costs.note(1, 99.0)  # the first passes of a shape are recorded: they do not count
        costs.note(9, 99.0)
    for _ in range(5):
        costs.note(1, 2.0)
        costs.note(9, 8.0)
    costs.note(1, 50.0)  # one hiccup does not move a median
    assert costs.seconds(1) == 2.0 and costs.seconds(9) == 8.0
    between = [costs.seconds(rows) for rows in range(1, 10)]
    assert between == sorted(between)
    assert costs.is_fresh(9)
    for _ in range(LASTS + 1):
        costs.note(1, 4.0)
    assert not costs.is_fresh(9) and costs.is_fresh(1)


def test_nothing_is_extrapolated_far():
    """Long drafts come after shorter ones have been measured, however right the guesses are."""
    costs = PassCosts()
    policy = Policy(costs, 64)
    lengths = [policy.plan("grammar", 0, 64).length]
    for rows in (1, 4, 10, 20):
        for _ in range(UNCOUNTED + 1):
            costs.note(rows, 1 + 0.01 * rows)
        lengths.append(
            taught(policy, "grammar", 0, 1.0, random.Random(1), rounds=9).plan("grammar", 0, 64).length
        )
    assert lengths[0] <= 3 and lengths[1:] == [3, 9, 21, 41]


def test_hopeless_asks_for_a_new_measurement_of_the_plain_pass():
    costs = costs_of(FLAT)
    policy = Policy(costs, 15)
    assert not policy.hopeless
    for _ in range(LASTS + 1):
        costs.note(3, 1.1)
        costs.note(2, 1.05)
    assert policy.hopeless, "a pass without drafts is due"
    costs.note(1, 1.0)
    assert not policy.hopeless


class Past:
    def __init__(self, tokens, sample_index=0):
        import numpy as np

        self.token_ids, self.sample_index = np.array(tokens, np.int32), sample_index


def test_a_corpus_is_bounded_and_forgets_the_oldest():
    corpus = Corpus(100)
    for i in range(50):
        corpus.add(list(range(10 * i, 10 * i + 9)))
        assert len(corpus) <= 100
    drafter = CorpusDrafter(corpus)
    assert drafter.draft(Past([490, 491]), 3).ids == [492, 493, 494]
    assert drafter.draft(Past([0, 1]), 3).ids == []
    corpus.add(list(range(5000, 5300)))
    assert len(corpus) <= 100 and drafter.draft(Past([5290, 5291]), 2).ids == [5292, 5293]


def test_a_corpus_against_brute_force():
    """The longest ending of the history in any output, at every point of adding, growing, rewinding."""
    rng = random.Random(6)
    for _ in range(60):
        corpus, outputs, history = Corpus(10_000), [], []
        drafter = CorpusDrafter(corpus)
        for _ in range(40):
            move = rng.random()
            if move < 0.2:
                outputs.append([rng.randrange(3) for _ in range(rng.randrange(1, 12))])
                corpus.add(outputs[-1])
            elif move < 0.3 and history:
                del history[rng.randrange(len(history)) :]
            else:
                history.append(rng.randrange(3))
            if not history:
                continue
            draft = drafter.draft(Past(history), 4)
            assert BORDER not in draft.ids
            n = draft.confidence
            tail = history[len(history) - n :] + draft.ids
            if n:
                assert any(tail == o[i : i + len(tail)] for o in outputs for i in range(len(o)))
