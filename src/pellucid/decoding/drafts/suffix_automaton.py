"""A suffix automaton of a growing list of tokens: which ending of it has been there before, and where.

The automaton of s (Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text") has at most
2 |s| states; a state stands for the substrings of s that end at the same set of places. Its suffix link leads to the
longest suffix of these with more places. So the link of the state of s itself is the longest suffix of s that also
occurs earlier. Appending costs O(1) on average over the list; taking tokens back restores what was there before them.
"""

from __future__ import annotations

from collections.abc import Iterable

# How many states of the suffix chain learn of a new occurrence. Longest first: those beyond keep an earlier place,
# which is an occurrence too. A chain has as many states as the text repeats itself at its end; few in most texts.
MOST_NOTED = 16


class SuffixAutomaton:
    """length[state]: of its longest substring. end[state]: where one of its occurrences ends (exclusive), the latest
    for the first MOST_NOTED states of each chain. Per token: the state of the whole prefix, the state that its
    appending has split (-1: none), its match, and the ends that it overwrote.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.next: list[dict[int, int]] = [{}]
        self.link = [-1]
        self.length = [0]
        self.end = [0]
        self._prefixes = [0]
        self._splits: list[int] = []
        self._matches = [(0, 0)]
        self._overwritten: list[list[tuple[int, int]]] = []

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def match(self) -> tuple[int, int]:
        """(length, end): the longest suffix of the tokens that occurs earlier, tokens[end - length : end] with
        end < len(tokens); (0, 0): there is none."""
        return self._matches[-1]

    def continuation(self, end: int, most: int) -> list[int]:
        """The `most` tokens after an occurrence that ended there; where it runs into its own end it repeats."""
        tokens = self.tokens
        found = tokens[end : end + most]
        period = len(tokens) - end
        while period and len(found) < most:
            found.append(found[-period])
        return found

    def extend(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        following, link, length, end = self.next, self.link, self.length, self.end
        self.tokens.append(token)
        size = len(self.tokens)
        state = self._prefixes[-1]
        new = self._state(size, {}, -1, size)
        while state >= 0 and token not in following[state]:
            following[state][token] = new
            state = link[state]
        split = -1
        if state < 0:
            link[new] = 0
        else:
            target = following[state][token]
            if length[state] + 1 == length[target]:
                link[new] = target
            else:
                split = target
                clone = self._state(length[state] + 1, following[target].copy(), link[target], end[target])
                while state >= 0 and following[state].get(token) == target:
                    following[state][token] = clone
                    state = link[state]
                link[target] = link[new] = clone
        self._prefixes.append(new)
        self._splits.append(split)
        self._note(new)

    def truncate(self, size: int) -> None:
        """Takes tokens back until `size` are left."""
        while len(self.tokens) > size:
            self._pop()

    def follow(self, state: int, matched: int, token: int) -> tuple[int, int]:
        """The longest suffix of (what was matched, then token) that occurs here: (its state, its length), from those
        before the token. (0, 0) is where nothing is matched."""
        while state and matched <= self.length[self.link[state]]:  # split since
            state = self.link[state]
        while state and token not in self.next[state]:
            state = self.link[state]
            matched = self.length[state]
        target = self.next[state].get(token)
        return (0, 0) if target is None else (target, matched + 1)

    # --- inside ---------------------------------------------------------------------------------------
    def _state(self, length: int, following: dict[int, int], link: int, end: int) -> int:
        self.next.append(following)
        self.link.append(link)
        self.length.append(length)
        self.end.append(end)
        return len(self.link) - 1

    def _note(self, new: int) -> None:
        """The match of the whole, and the new end for the suffixes that have been there before."""
        state, size, end = self.link[new], len(self.tokens), self.end
        self._matches.append((self.length[state], end[state]) if state else (0, 0))
        overwritten = []
        for _ in range(MOST_NOTED):
            if state <= 0:
                break
            overwritten.append((state, end[state]))
            end[state] = size
            state = self.link[state]
        self._overwritten.append(overwritten)

    def _pop(self) -> None:
        following, link = self.next, self.link
        for state, end in self._overwritten.pop():
            self.end[state] = end
        self._matches.pop()
        token, new, split = self.tokens.pop(), self._prefixes.pop(), self._splits.pop()
        clone = new + 1 if split >= 0 else -1
        if split >= 0:
            link[split] = link[clone]
        state = self._prefixes[-1]
        while state >= 0 and following[state].get(token) == new:
            del following[state][token]
            state = link[state]
        while split >= 0 and state >= 0 and following[state].get(token) == clone:
            following[state][token] = split
            state = link[state]
        for column in (following, link, self.length, self.end):
            del column[new:]
