"""Log-probabilities of many continuations of many contexts: one token trie for each context, computed once.

Edges of the trie are runs of tokens without a branch. An edge is a fork of its parent's held sequence, and all
edges of one depth share their passes. The last token of a continuation is never computed, only looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pellucid.sampling.distribution import Distribution

if TYPE_CHECKING:
    from pellucid.engine.held import Held
    from pellucid.serving.driver import Driver
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
            spread = Distribution(row)  # of one row alone, so it does not depend on its company
            best = int(row.argmax())
            for token, child in nodes[offset].children.items():
                child.value = (spread.logprob(token), token == best)


def score_pairs(driver: Driver, pairs: Iterable[Pair], most_tokens: int) -> Iterator[tuple[list[Line], int]]:
    """For each pair the lines of its continuations, and the positions computed for it.

    pairs are read as they are needed: at a time, WINDOW of them at most are in the engine, and tries of most_tokens
    positions in all (one pair always is).
    """
    for window in _windows(pairs, most_tokens):
        roots = [build(pair.continuations) for pair in window]
        counts = _fill(driver, window, roots)
        for pair, root, num_computed in zip(window, roots, counts, strict=True):
            yield [_line(root, ids) for ids in pair.continuations], num_computed


def _windows(pairs: Iterable[Pair], most_tokens: int) -> Iterator[list[Pair]]:
    window: list[Pair] = []
    tokens = 0
    for pair in pairs:
        size = len(pair.context) + sum(map(len, pair.continuations))
        if window and (len(window) == WINDOW or tokens + size > most_tokens):
            yield window
            window, tokens = [], 0
        window.append(pair)
        tokens += size
    if window:
        yield window


def _fill(driver: Driver, pairs: Sequence[Pair], roots: Sequence[Node]) -> list[int]:
    """Every node of the tries gets its value. Returns the positions computed for each pair."""
    counts = [0] * len(pairs)
    every: dict[
        Held, tuple[int, int | None]
    ] = {}  # those that are open: whose pair they belong to, what to keep
    try:
        wave = _Wave()
        for index, (pair, root) in enumerate(zip(pairs, roots, strict=True)):
            held = driver.hold(pair.context)
            every[held] = index, None
            wave.add(held, [root])
        while wave.held:
            driver.evaluate(wave.held, wave.take)
            following = _Wave()
            for held in wave.held:
                index, _ = every[held]
                for token, child in wave.nodes[id(held)][1][-1].children.items():
                    if child.children:
                        ids, nodes = _run(token, child)
                        fork = held.fork()
                        every[fork] = index, len(held)
                        fork.append(ids)
                        following.add(fork, nodes)
            wave = following
        for held, (index, _) in every.items():
            counts[index] += held.cost.computed
        return counts
    finally:
        for held, (_, keep) in reversed(
            every.items()
        ):  # contexts stay in the cache, nobody asks for a branch again
            held.close(keep=keep)


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
