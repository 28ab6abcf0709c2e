"""Contrastive search (Su et al. 2022, arXiv 2202.06417): of the k most probable tokens, the one that balances
probability against being like what is there already.

score(v) = (1 - alpha) p(v) - alpha max_j cos(h_v, h_j), h being the hidden states that the output projection reads: h_v
after v, h_j after each earlier token. All k candidates of a step, of all outputs, share a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pellucid.decoding.expansion import Float64, Path, best


class LookaheadTree(Protocol):
    """One prompt's tokens, of which some paths were evaluated."""

    @property
    def stop_ids(self) -> Sequence[int]: ...

    def distribution(self, path: Path) -> Float64:
        """Log-probabilities, float64 [vocabulary], after a path of the last evaluation."""

    def hidden(self, path: Path) -> Float64:
        """float64 [positions, width] of the last token of the path; of (): of every token of the prompt."""

    def release(self, path: Path) -> None:
        """Nothing that goes on from exactly this path will be evaluated."""


Evaluate = Callable[[Sequence[tuple[LookaheadTree, Sequence[Path]]]], None]


@dataclass(frozen=True, slots=True)
class ContrastiveStep:
    """One token. candidates: the k most probable ids, best first, with their probabilities, their greatest cosine with
    an earlier position (penalties), and their scores; token_id has the highest (the first of equals)."""

    token_id: int
    candidates: tuple[int, ...]
    probabilities: tuple[float, ...]
    penalties: tuple[float, ...]
    scores: tuple[float, ...]


@dataclass(slots=True)
class Output:
    """One output while it grows. context: float64 [positions, width], unit vectors."""

    tree: LookaheadTree
    context: Float64
    logprobs: Float64
    path: Path = ()
    steps: list[ContrastiveStep] = field(default_factory=list)
    ended: bool = False

    def candidates(self, k: int) -> list[Path]:
        return [(*self.path, token) for token in best(self.logprobs, k).tolist()]

    def take(self, children: Sequence[Path], alpha: float) -> None:
        """The best of these candidates, which have been evaluated."""
        ids = [path[-1] for path in children]
        probabilities = np.exp(self.logprobs[ids])
        units = [_unit(self.tree.hidden(path)[-1:]) for path in children]
        # A product and a sum for each pair: the order of additions depends on the width alone.
        penalties = np.array([(self.context * unit).sum(axis=1).max() for unit in units])
        scores = (1.0 - alpha) * probabilities - alpha * penalties
        chosen = int(np.argmax(scores))
        for path in (self.path, *children):
            if path != children[chosen] and path:
                self.tree.release(path)
        self.steps.append(
            ContrastiveStep(
                ids[chosen],
                tuple(ids),
                tuple(probabilities.tolist()),
                tuple(penalties.tolist()),
                tuple(scores.tolist()),
            )
        )
        self.path = children[chosen]
        self.context = np.concatenate([self.context, units[chosen]])
        self.ended = ids[chosen] in self.tree.stop_ids


@dataclass(frozen=True, slots=True)
class ContrastiveSearch:
    """k candidates a step; alpha from 0 (the most probable) to 1 (the least like the context)."""

    k: int
    alpha: float
    most_tokens: int

    def run(self, trees: Sequence[LookaheadTree], evaluate: Evaluate) -> list[Output]:
        """One output of each tree."""
        evaluate([(tree, [()]) for tree in trees])
        outputs = [Output(tree, _unit(tree.hidden(())), tree.distribution(())) for tree in trees]
        for length in range(1, self.most_tokens + 1):
            going = [output for output in outputs if not output.ended]
            if not going:
                break
            children = [output.candidates(self.k) for output in going]
            evaluate([(output.tree, paths) for output, paths in zip(going, children, strict=True)])
            for output, paths in zip(going, children, strict=True):
                output.take(paths, self.alpha)
                if not output.ended and length < self.most_tokens:
                    output.logprobs = output.tree.distribution(output.path)
        return outputs


def _unit(rows: Float64) -> Float64:
    """[positions, width], each of length 1."""
    lengths = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    unit: Float64 = rows / np.maximum(lengths, 1e-30)
    return unit
