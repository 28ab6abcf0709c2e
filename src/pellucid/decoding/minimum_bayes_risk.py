"""Minimum Bayes risk over samples (Kumar and Byrne 2004; Eikema and Aziz 2020, arXiv 2005.10283): the sample that is,
on average, most like all samples, which stand for the distribution that they were drawn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pellucid.decoding.utilities import Utility


def expected_utilities(texts: Sequence[str], utility: Utility) -> list[float]:
    """Of each text: the mean of utility(text, reference) over all texts as references, itself too. Equal texts are
    compared once, and count as often as they are there."""
    prepared = {text: utility.prepare(text) for text in texts}
    counts = Counter(texts)
    mean = {
        text: sum(
            count * utility.compare(prepared[text], prepared[reference])
            for reference, count in counts.items()
        )
        / len(texts)
        for text in counts
    }
    return [mean[text] for text in texts]
