"""Samples compared with each other: scores, votes and risks against their definitions."""

from __future__ import annotations

import json
import math

import pytest

from pellucid import LLM, PellucidError, UsageError
from pellucid.decoding.minimum_bayes_risk import expected_utilities
from pellucid.decoding.utilities import UTILITIES, Utility
from pellucid.decoding.vote import count_votes

ARGUMENTS = {"temperature": 1.0, "seed": 7, "max_tokens": 6, "n": 12}


@pytest.fixture(scope="module")
def model(tiny_path):
    with LLM(tiny_path, num_threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def samples(model):
    return model.generate("ab", logprobs=0, **ARGUMENTS).outputs


@pytest.mark.parametrize("by", ["sum", "mean"])
def test_best_of_ranks_the_samples_of_generate(model, samples, by):
    result = model.best_of("ab", by=by, **ARGUMENTS)
    totals = [math.fsum(token.logprob for token in sample.logprobs) for sample in samples]
    scores = [t / (len(s.token_ids) if by == "mean" else 1) for t, s in zip(totals, samples, strict=True)]
    order = sorted(range(len(samples)), key=lambda i: (-scores[i], i))
    assert [each.sample.index for each in result.ranked] == order
    assert [each.sample.token_ids for each in result.ranked] == [samples[i].token_ids for i in order]
    assert [each.score for each in result.ranked] == [scores[i] for i in order]
    assert result.text == samples[order[0]].text
    json.dumps(result.to_dict(), allow_nan=False)


def test_best_of_by_a_function(model, samples):
    result = model.best_of("ab", by=lambda sample: -len(sample.text), **ARGUMENTS)
    assert len(result.text) == min(len(sample.text) for sample in samples)
    assert result.by.endswith("<lambda>")
    with pytest.raises(PellucidError, match="finite number"):
        model.best_of("ab", by=lambda sample: float("nan"), **ARGUMENTS)


def test_a_vote_counts_what_was_extracted(model, samples):
    def extract(text):
        return len(text) if len(text) % 3 else None

    result = model.self_consistency("ab", extract=extract, **ARGUMENTS)
    lengths = [len(sample.text) for sample in samples if len(sample.text) % 3]
    most = max(dict.fromkeys(lengths), key=lengths.count)  # of equals the first
    assert result.answer == most and result.num_abstained == len(samples) - len(lengths)
    assert result.share == lengths.count(most) / len(lengths)
    assert len(result.text) == most
    weighted = model.self_consistency("ab", extract=extract, weighted=True, **ARGUMENTS)
    for party in weighted.parties:
        means = [
            math.fsum(token.logprob for token in samples[i].logprobs) / len(samples[i].token_ids)
            for i in party.samples
        ]
        assert party.weight == pytest.approx(sum(map(math.exp, means)))
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_pattern_reads_the_last_match(model):
    from pellucid.search.reranking import _extractor

    assert _extractor(r"answer is (\d+)")("the answer is 3, no, the answer is 14.") == "14"
    assert _extractor(r"\d+\s*$")("one 1 two 22 ") == "22"
    assert _extractor(r"(x)|y")("y") is None and _extractor("z")("y") is None
    nobody = model.self_consistency("ab", extract="no such answer", **ARGUMENTS)
    assert nobody.answer is None and nobody.text == "" and nobody.share == 0 and nobody.num_abstained == 12


def test_votes_of_equal_weight_go_to_the_first():
    parties = count_votes(["b", None, "a", "a", "b", "c"], [1.0] * 6)
    assert [(p.answer, p.weight, p.samples) for p in parties] == [
        ("b", 2.0, (0, 4)),
        ("a", 2.0, (2, 3)),
        ("c", 1.0, (5,)),
    ]
    assert count_votes(["a", "b"], [0.25, 0.5])[0].answer == "b"


@pytest.mark.parametrize("utility", ["exact", "token_f1", "chrf"])
def test_minimum_bayes_risk_is_the_mean_over_all_pairs(model, samples, utility):
    result = model.minimum_bayes_risk("ab", utility=utility, **ARGUMENTS)
    compare = UTILITIES[utility]
    means = [
        sum(compare(a.text, b.text) for b in samples) / len(samples) for a in samples
    ]  # every pair, one by one
    for each in result.ranked:
        assert each.score == pytest.approx(means[each.sample.index])
    assert result.ranked[0].score == pytest.approx(max(means))


def test_a_utility_of_the_user_sees_hypothesis_and_reference(model, samples):
    result = model.minimum_bayes_risk("ab", utility=lambda a, b: float(len(a) >= len(b)), **ARGUMENTS)
    assert len(result.text) == max(len(sample.text) for sample in samples)
    with pytest.raises(PellucidError, match="utility"):
        model.minimum_bayes_risk("ab", utility=lambda a, b: None, **ARGUMENTS)


def test_equal_texts_are_compared_once():
    seen = []
    texts = ["a", "b", "a", "a"]
    utility = Utility(str, lambda a, b: seen.append((a, b)) or float(a == b))
    assert expected_utilities(texts, utility) == [0.75, 0.25, 0.75, 0.75]
    assert sorted(seen) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]


PAIRS = [
    ("the cat sat on the mat", "the cat sat on a mat"),
    ("abc", "abc"),
    ("a", "b"),
    ("ab", "abcdefgh"),
    ("Größe  und\nweite", "Grösse und Weite"),
    ("xyz", "the quick brown fox"),
]


@pytest.mark.parametrize(("hypothesis", "reference"), PAIRS)
def test_chrf_is_that_of_sacrebleu(hypothesis, reference):
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed (extra: eval)")
    theirs = sacrebleu.metrics.CHRF().sentence_score(hypothesis, [reference]).score / 100
    assert UTILITIES["chrf"](hypothesis, reference) == pytest.approx(theirs, abs=1e-12)


def test_utilities_at_their_edges():
    for utility in UTILITIES.values():
        assert utility("", "") == 1.0 and utility("a b", "a b") == 1.0 and utility("a", "") == 0.0
    assert UTILITIES["token_f1"]("a a b", "a b c") == pytest.approx(2 * 2 / 6)
    # by hand: unigrams 2/3 and 2/4, bigrams 1/2 and 1/3; trigrams 0/1 and 0/2 (the other orders are not in both)
    precision, recall = (2 / 3 + 1 / 2 + 0) / 3, (2 / 4 + 1 / 3 + 0) / 3
    assert UTILITIES["chrf"]("abx", "abcd") == pytest.approx(
        5 * precision * recall / (4 * precision + recall)
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.best_of("ab", n=4, max_tokens=2), "temperature"),
        (lambda m: m.best_of("ab", n=4, by="best", temperature=1.0), "by: expected"),
        (lambda m: m.best_of("ab", n=0, temperature=1.0), "n: expected"),
        (lambda m: m.best_of(["ab", "c"], n=2, temperature=1.0), "one prompt"),
        (lambda m: m.self_consistency("ab", extract="(", temperature=1.0), "regular expression"),
        (lambda m: m.minimum_bayes_risk("ab", utility="bleu", temperature=1.0), "exact, token_f1, chrf"),
    ],
)
def test_what_makes_no_sense_is_refused(model, call, said):
    with pytest.raises(UsageError, match=said):
        call(model)
