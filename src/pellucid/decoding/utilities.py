"""How alike two texts are, from 0 to 1: what minimum Bayes risk decoding takes as utility."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CHRF_ORDER = 6  # character n-grams of 1 to so many
CHRF_BETA = 2.0  # recall counts beta^2 times as much as precision


@dataclass(frozen=True, slots=True)
class Utility:
    """compare(prepare(hypothesis), prepare(reference)): each text is taken apart once, and compared many times."""

    prepare: Callable[[str], Any]
    compare: Callable[[Any, Any], float]

    def __call__(self, hypothesis: str, reference: str) -> float:
        return self.compare(self.prepare(hypothesis), self.prepare(reference))


def _exact(hypothesis: str, reference: str) -> float:
    return float(hypothesis == reference)


def _overlap(a: Counter[str], b: Counter[str]) -> int:
    return sum((a & b).values())


def _token_f1(hypothesis: Counter[str], reference: Counter[str]) -> float:
    """The harmonic mean of precision and recall of the words, as bags (Rajpurkar et al. 2016, without its removal of
    articles and punctuation)."""
    total = hypothesis.total() + reference.total()
    return 2.0 * _overlap(hypothesis, reference) / total if total else 1.0


def _character_ngrams(text: str) -> list[Counter[str]]:
    """[order - 1]: of the text without white space."""
    plain = "".join(text.split())
    return [
        Counter(plain[i : i + order] for i in range(len(plain) - order + 1))
        for order in range(1, CHRF_ORDER + 1)
    ]


def _chrf(hypothesis: list[Counter[str]], reference: list[Counter[str]]) -> float:
    """Popovic 2015 (chrF2): precision and recall averaged over the orders that both texts have, then their F-score.
    Two texts without characters are alike."""
    precision = recall = 0.0
    orders = 0
    for ours, theirs in zip(hypothesis, reference, strict=True):
        if ours and theirs:
            same = _overlap(ours, theirs)
            precision += same / ours.total()
            recall += same / theirs.total()
            orders += 1
    if orders == 0:
        return float(not hypothesis[0] and not reference[0])
    precision, recall = precision / orders, recall / orders
    weighted = CHRF_BETA**2 * precision + recall
    return (1 + CHRF_BETA**2) * precision * recall / weighted if weighted else 0.0


UTILITIES: dict[str, Utility] = {
    "exact": Utility(str.strip, _exact),
    "token_f1": Utility(lambda text: Counter(text.split()), _token_f1),
    "chrf": Utility(_character_ngrams, _chrf),
}
