"""Best-first search for the most probable outputs, in batches, with lazy siblings and a certificate.

The idea is Dijkstra's on the tree of tokens (Meister, Vieira and Cotterell 2020; Stahlberg and Byrne 2019 search the
same tree depth first): scores fall along every path, so once the best open prefix is worse than the best whole output,
nothing open can beat it. Siblings are lazy (partial expansion, Yoshizumi et al. 2000): of a node's children only the
best one that was not taken yet stands in the heap, so memory does not grow with the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from pellucid.decoding.expansion import Expander, Expansion, Path
from pellucid.decoding.goal import NOTHING, Goal

RANKS = (
    32  # children of a node that are kept; its row is computed again, with more, where they do not suffice
)


# Bytes, measured with CPython 3.11: an opened prefix in the proof; one that still has open children, beside its ranks;
# an entry of the heap. A path has 8 bytes a token, in each of them.
OPENED_BYTES, NODE_BYTES, ENTRY_BYTES = 100, 550, 130


@dataclass(slots=True)
class Node:
    """A prefix that was opened, with its next child in line."""

    path: Path
    score: float
    expansion: Expansion
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """lower: the value of the n-th best output found (-inf: fewer are). upper: nothing that was not found has a higher
    value. nodes: prefixes opened. open: entries of the heap. done: nothing open can change what was found."""

    lower: float
    upper: float
    nodes: int
    open: int
    done: bool


class ExactSearch:
    """Advance it with `step` until `bounds.done`, or until the budget ends; what is found lies in `goal`."""

    def __init__(
        self, expander: Expander, goal: Goal, *, batch: int = 16, must_end: bool = False, ranks: int = RANKS
    ) -> None:
        self._expander, self.goal, self._batch = expander, goal, batch
        self._must_end, self._ranks = must_end, ranks
        self._heap: list[
            tuple[float, Path, Node | None]
        ] = []  # (-bound, path of the best in it, whose child)
        self._children: dict[
            Path, int
        ] = {}  # of an opened node: how many of its children may still be opened
        self.nodes = self._depths = 0
        self.opened: list[Path] = []  # every prefix whose distribution was looked at: the proof
        self.pruned = NOTHING  # the highest bound of what was left out
        self.completed_mass = 0.0  # probability of all whole outputs that were seen
        self.closed_mass = 0.0  # of what was left out, or is excluded
        heappush(self._heap, (0.0, (), None))
        self._scores: dict[Path, float] = {(): 0.0}

    # --- what it knows ------------------------------------------------------------------------------
    @property
    def bounds(self) -> Bounds:
        upper = self._upper()
        lower = self.goal.threshold(0)
        return Bounds(lower, max(upper, self.pruned, self.goal.lost), self.nodes, len(self._heap), self.done)

    @property
    def num_bytes(self) -> int:
        """An estimate of what the search keeps, without keys and values."""
        path = 8 * self._depths // max(1, self.nodes)
        opened = len(self.opened) * (OPENED_BYTES + path)
        nodes = len(self._children) * (NODE_BYTES + path + 12 * self._ranks)
        return opened + nodes + len(self._heap) * (ENTRY_BYTES + path)

    @property
    def done(self) -> bool:
        self._drop()
        return not self._heap

    def _upper(self) -> float:
        return -self._heap[0][0] if self._heap else NOTHING

    def open_mass(self) -> float:
        """The probability of everything that is still open: with what was completed and closed it makes 1."""
        total = 0.0
        for _, path, node in self._heap:
            if node is None:
                total += float(np.exp(self._scores[path]))
            else:
                total += float(np.exp(node.score)) * self._rest(node)
        return total

    @staticmethod
    def _rest(node: Node) -> float:
        return float(np.exp(node.expansion.logprobs[node.rank :]).sum()) + node.expansion.tail

    # --- one batch ----------------------------------------------------------------------------------
    def step(self) -> None:
        """Opens the best prefixes, at most `batch` of them, in shared passes."""
        chosen: list[tuple[Path, float]] = []
        while self._heap and len(chosen) < self._batch:
            negative, path, node = self._heap[0]
            if -negative < self.goal.threshold(len(path)):
                self._drop()
                continue
            heappop(self._heap)
            if node is None:
                chosen.append((path, self._scores.pop(path)))
                continue
            token, score = self._take(node)
            chosen.append(((*node.path, token), score))
        if not chosen:
            return
        for (path, score), expansion in zip(
            chosen, self._expander.expand([path for path, _ in chosen], self._ranks), strict=True
        ):
            self._open(path, score, expansion)

    def _take(self, node: Node) -> tuple[int, float]:
        """The next child in line; the one after it takes its place in the heap."""
        self._list_more(node)
        token = int(node.expansion.ids[node.rank])
        score = node.score + float(node.expansion.logprobs[node.rank])
        node.rank += 1
        self._children[node.path] += 1
        self._push_sibling(node)
        return token, score

    def _list_more(self, node: Node) -> None:
        if node.rank >= len(node.expansion.ids):
            ranks = 8 * max(len(node.expansion.ids), 1)
            node.expansion = self._expander.expand([node.path], ranks)[0]

    def _push_sibling(self, node: Node) -> None:
        expansion, depth = node.expansion, len(node.path)
        listed = node.rank < len(expansion.ids)
        logprob = float(expansion.logprobs[node.rank]) if listed else expansion.following
        if logprob == NOTHING:
            self._forget_line(node)
            return
        bound = self.goal.bound(node.score + logprob, depth + 1)
        if bound < self.goal.threshold(depth + 1):
            self._leave_out(bound, node)
            return
        # Where the child is not listed yet, its id is unknown: -1 comes before every id, so that no tie is missed.
        token = int(expansion.ids[node.rank]) if listed else -1
        heappush(self._heap, (-bound, (*node.path, token), node))

    def _open(self, path: Path, score: float, expansion: Expansion) -> None:
        self.nodes += 1
        self._depths += len(path)
        self.opened.append(path)
        depth = len(path)
        self.closed_mass += float(np.exp(score)) * expansion.excluded
        for token, logprob in expansion.ends:
            self._complete(score + logprob, (*path, token), True)
        node = Node(path, score, expansion)
        self._children[path] = 1  # its line of siblings
        if depth + 1 < self.goal.most_tokens:
            self._push_sibling(node)
        elif self._must_end:
            self._leave_out(NOTHING, node)
        else:
            self._cut(node)

    def _cut(self, node: Node) -> None:
        """The children are whole outputs, of the most tokens: no row is needed for them."""
        depth = len(node.path)
        while True:
            listed = node.rank < len(node.expansion.ids)
            logprob = float(node.expansion.logprobs[node.rank]) if listed else node.expansion.following
            value = self.goal.value(node.score + logprob, depth + 1)
            if logprob == NOTHING or value < self.goal.threshold(depth):
                self._leave_out(value if logprob > NOTHING else NOTHING, node)
                return
            self._list_more(node)
            token = int(node.expansion.ids[node.rank])
            self._complete(node.score + float(node.expansion.logprobs[node.rank]), (*node.path, token), False)
            node.rank += 1

    def _complete(self, score: float, path: Path, ended: bool) -> None:
        self.completed_mass += float(np.exp(score))
        if score > NOTHING:
            self.goal.offer(score, path, ended)

    # --- what is left out -----------------------------------------------------------------------------
    def _drop(self) -> None:
        """Takes from the top of the heap what cannot change the result any more."""
        while self._heap:
            negative, path, node = self._heap[0]
            if -negative >= self.goal.threshold(len(path)):
                return
            heappop(self._heap)
            if node is None:
                self.pruned = max(self.pruned, -negative)
                self.closed_mass += float(np.exp(self._scores.pop(path)))
            else:
                self._leave_out(-negative, node)

    def _leave_out(self, bound: float, node: Node) -> None:
        self.pruned = max(self.pruned, bound)
        self.closed_mass += float(np.exp(node.score)) * self._rest(node)
        self._forget_line(node)

    def _forget_line(self, node: Node) -> None:
        """Its line of siblings has ended; nodes below which nothing is open give their keys and values back."""
        path = node.path
        while True:
            self._children[path] -= 1
            if self._children[path] > 0:
                return
            del self._children[path]
            self._expander.release(path)
            if not path:
                return
            path = path[:-1]
