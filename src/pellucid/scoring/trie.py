"""Log-probabilities of many continuations of many contexts: one token trie for each context, computed once.

Edges of the trie are runs of tokens without a branch. An edge is a fork of its parent's held sequence, and all
edges of one depth share their passes. The last token of a continuation is never computed, only looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pellucid.driver import Driver
    from pellucid.engine.held import Held
    from pellucid.types import Float32

WINDOW = 32  # contexts whose tries are in the engine at once


class Pair(NamedTuple):
    """A context, not empty, and its continuations, none of them empty."""

    context: Sequence[int]
    continuations: Sequence[Sequence[int]]


class Line(NamedTuple):
    """One continuation: the log-probability of each token, and whether it was the most probable one."""

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]


class Node:
    """A token path. value: (log-probability, whether most probable) of its last token after those before it."""

    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[int, Node] = {}
        self.value = (0.0, False)


def build(continuations: Sequence[Sequence[int]]) -> Node:
    root = Node()
    for ids in continuations:
        node = root
        for token in ids:
            node = node.children.setdefault(token, Node())
    return root


def log_sum_exp(row: Float32) -> float:
    """log(sum(exp(row))) in float64; a row is summed by itself, so it does not depend on its company."""
    wide = row.astype(np.float64)
    top = float(wide.max())
    return top + float(np.log(np.exp(wide - top).sum()))


class _Wave:
    """The edges of one depth: nodes of each sequence by position, filled from the rows as they come."""

    def __init__(self) -> None:
        self.nodes: dict[
            int, tuple[int, list[Node]]
        ] = {}  # by id of the held sequence: (first position, nodes)
        self.held: list[Held] = []

    def add(self, held: Held, nodes: list[Node]) -> None:
        """nodes: those of its last len(nodes) positions."""
        first = len(held) - len(nodes)
        held.first_logit = first
        self.nodes[id(held)] = (first, nodes)
        self.held.append(held)

    def take(self, held: Held, position: int, rows: Float32) -> None:
        first, nodes = self.nodes[id(held)]
        for offset, row in enumerate(rows, position - first):
            total, best = log_sum_exp(row), int(row.argmax())
            for token, child in nodes[offset].children.items():
                child.value = (float(row[token]) - total, token == best)


def score_pairs(driver: Driver, pairs: Sequence[Pair]) -> tuple[list[list[Line]], int]:
    """(for each pair the lines of its continuations, positions computed)."""
    lines: list[list[Line]] = []
    num_computed = 0
    for start in range(0, len(pairs), WINDOW):
        window = pairs[start : start + WINDOW]
        roots = [build(pair.continuations) for pair in window]
        num_computed += _fill(driver, window, roots)
        for pair, root in zip(window, roots, strict=True):
            lines.append([_line(root, ids) for ids in pair.continuations])
    return lines, num_computed


def _fill(driver: Driver, pairs: Sequence[Pair], roots: Sequence[Node]) -> int:
    """Every node of the tries gets its value. Returns the positions computed."""
    every: list[Held] = []
    try:
        wave = _Wave()
        for pair, root in zip(pairs, roots, strict=True):
            held = driver.hold(pair.context)
            every.append(held)
            wave.add(held, [root])
        while wave.held:
            driver.evaluate(wave.held, wave.take)
            following = _Wave()
            for held in wave.held:
                for token, child in wave.nodes[id(held)][1][-1].children.items():
                    if child.children:
                        ids, nodes = _run(token, child)
                        fork = held.fork()
                        every.append(fork)
                        fork.append(ids)
                        following.add(fork, nodes)
            wave = following
        return sum(held.cost.computed for held in every)
    finally:
        for held in every:
            held.close()


def _run(token: int, node: Node) -> tuple[list[int], list[Node]]:
    """The tokens from here to the next branch, without a leaf, and their nodes."""
    ids, nodes = [token], [node]
    while len(node.children) == 1:
        token, node = next(iter(node.children.items()))
        if not node.children:
            break
        ids.append(token)
        nodes.append(node)
    return ids, nodes


def _line(root: Node, ids: Sequence[int]) -> Line:
    values, node = [], root
    for token in ids:
        node = node.children[token]
        values.append(node.value)
    return Line(tuple(value for value, _ in values), tuple(best for _, best in values))
