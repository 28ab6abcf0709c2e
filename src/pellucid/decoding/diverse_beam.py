"""Diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424): several beams that keep out of each other's way.

The beams (groups) take each step one after the other; a token that j running prefixes of earlier groups have just taken
costs j * diversity (the Hamming penalty of the paper, as in transformers' `num_beam_groups`). Penalties add up along a
prefix and stay in its score. Each group ends by the rules of `beam.py`. The rows of all groups share their passes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pellucid.decoding.beam import Beam, BeamRules, BeamStep
from pellucid.decoding.expansion import Expander
from pellucid.decoding.goal import Found


@dataclass(frozen=True, slots=True)
class DiverseBeamSearch:
    """rules: of one group. diversity: at least 0, so that a penalty only lowers a score: then the `count` best of
    penalised tokens are among the `count` + (penalised tokens) best of all, and no whole row has to be kept."""

    rules: BeamRules
    num_groups: int
    diversity: float

    def run(self, expander: Expander) -> tuple[list[list[Found]], list[list[BeamStep]]]:
        """Of each group: the finished outputs, the best first, and what happened at each step. An output's value has
        its penalties; its score is the plain sum of log-probabilities."""
        groups = [Beam(self.rules) for _ in range(self.num_groups)]
        ranks = self.rules.count + self.rules.width * (self.num_groups - 1)
        while going := [group for group in groups if not group.over]:
            paths = list(dict.fromkeys(each.path for group in going for each in group.running))
            expansions = dict(zip(paths, expander.expand(paths, ranks), strict=True))
            taken: Counter[int] = Counter()
            for group in going:
                penalties = {token: self.diversity * count for token, count in taken.items()}
                group.advance(group.candidates(expansions, penalties))
                taken.update(each.path[-1] for each in group.running)
        return [group.finished for group in groups], [group.steps for group in groups]
