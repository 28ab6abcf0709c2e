"""Stochastic beam search (Kool, van Hoof and Welling 2019, arXiv 1903.06059): samples without replacement.

Every output y gets the perturbed log-probability G(y) = log p(y) + Gumbel noise; the k largest are k samples without
replacement, in the order in which they would be drawn one after the other. The noise is drawn top down: a prefix has
the maximum of its outputs, and its children's are drawn given that maximum, so k prefixes of each length are enough.

The noise of a node is a function of (seed, the tokens that lead to it), keyed by
`sampling/path_noise.py`: no batch and no order of expansion changes a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pellucid.decoding.expansion import Float64, Path, RowExpander, best
from pellucid.sampling.path_noise import child_key, children_noise, root_noise


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample. logprob: log p(path). perturbed: G(path). weight: p / P(G(path) > threshold), threshold being the
    perturbed log-probability that the next sample would have: the sum of weight * f over the samples is an unbiased
    estimate of the mean of f over p (Kool et al., section 4.2)."""

    path: Path
    logprob: float
    perturbed: float
    weight: float
    ended: bool


@dataclass(frozen=True, slots=True)
class _Node:
    path: Path
    logprob: float
    perturbed: float
    key: int
    whole: bool
    ended: bool


@dataclass(frozen=True, slots=True)
class StochasticBeam:
    """width: how many samples. One more is carried along, for the threshold of the weights."""

    width: int
    most_tokens: int
    seed: int

    def run(self, expander: RowExpander) -> list[Draw]:
        """At most `width` different outputs, fewer where there are no more; in the order of drawing."""
        nodes = [_Node((), 0.0, root_noise(self.seed), self.seed, False, False)]
        while open_nodes := [node for node in nodes if not node.whole]:
            rows = expander.rows([node.path for node in open_nodes])
            found = [node for node in nodes if node.whole]
            for node, row in zip(open_nodes, rows, strict=True):
                found += self._children(node, row, expander.stop_ids.tolist())
            found.sort(key=lambda node: (-node.perturbed, node.path))
            nodes = found[: self.width + 1]
            kept = {node.path[:-1] for node in nodes}
            for node in open_nodes:
                if node.path not in kept:
                    expander.release(node.path)
        threshold = nodes[self.width].perturbed if len(nodes) > self.width else -np.inf
        return [self._draw(node, threshold) for node in nodes[: self.width]]

    def _children(self, node: _Node, row: Float64, stop_ids: list[int]) -> list[_Node]:
        """Those of its children that can be among the first: their order is that of the noise before it is given its
        maximum, because the step to that is monotone."""
        depth = len(node.path)
        noise = children_noise(node.key, depth, len(row))
        totals = node.logprob + row
        noisy = totals + noise
        chosen = best(noisy, self.width + 1)
        perturbed = given_maximum(noisy[chosen], node.perturbed)
        children = []
        for token, total, value in zip(
            chosen.tolist(), totals[chosen].tolist(), perturbed.tolist(), strict=True
        ):
            ended = token in stop_ids
            whole = ended or depth + 1 == self.most_tokens
            key = 0 if whole else child_key(node.key, depth, token)
            children.append(_Node((*node.path, token), total, value, key, whole, ended))
        return children

    @staticmethod
    def _draw(node: _Node, threshold: float) -> Draw:
        # P(G > t) = 1 - exp(-exp(log p - t)); where t is -inf every output was drawn.
        probability = -np.expm1(-np.exp(min(node.logprob - threshold, 700.0)))
        weight = float(np.exp(node.logprob) / probability) if probability > 0 else 0.0
        return Draw(node.path, node.logprob, node.perturbed, weight, node.ended)


def given_maximum(noisy: Float64, maximum: float) -> Float64:
    """Gumbel variables, descending, the first their maximum, made to have `maximum` as maximum (appendix B.3 of the
    paper, the form that does not cancel)."""
    with np.errstate(divide="ignore"):
        v = maximum - noisy + np.log1p(-np.exp(noisy - noisy[0]))
    moved: Float64 = maximum - np.maximum(0.0, v) - np.log1p(np.exp(-np.abs(v)))
    return moved
