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
_NO_MATCH = (0, 0)
_NOTHING: list[tuple[int, int]] = []


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

    def append(self, token: int) -> None:
        self.extend((token,))

    def extend(self, new_tokens: Iterable[int]) -> None:
        """One token after the other. (One loop over local names: a prompt of 1,000 tokens takes about 1.5 ms.)"""
        tokens, following, link = self.tokens, self.next, self.link
        length, ends, last = self.length, self.end, self._prefixes[-1]
        for token in new_tokens:
            tokens.append(token)
            size, new, state, split = len(tokens), len(link), last, -1
            following.append({})
            length.append(size)
            ends.append(size)
            link.append(0)
            while state >= 0 and token not in following[state]:
                following[state][token] = new
                state = link[state]
            if state >= 0:
                target = following[state][token]
                if length[state] + 1 == length[target]:
                    link[new] = target
                else:
                    split = target
                    self._split(state, target, token, new)
            self._prefixes.append(new)
            self._splits.append(split)
            state, last = link[new], new
            self._matches.append((length[state], ends[state]) if state else _NO_MATCH)
            self._overwritten.append(self._note(state, size) if state else _NOTHING)

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
    def _split(self, state: int, target: int, token: int, new: int) -> None:
        """target stands for strings that from now on end at different sets of places: the shorter ones, which end here
        too, get a state of their own, the one after `new`."""
        following, link = self.next, self.link
        clone = len(link)
        following.append(following[target].copy())
        link.append(link[target])
        self.length.append(self.length[state] + 1)
        self.end.append(self.end[target])
        while state >= 0 and following[state].get(token) == target:
            following[state][token] = clone
            state = link[state]
        link[target] = link[new] = clone

    def _note(self, state: int, size: int) -> list[tuple[int, int]]:
        """The new end for the suffixes that have been there before, from the longest on; the old ends."""
        end, overwritten = self.end, []
        for _ in range(MOST_NOTED):
            if state <= 0:
                break
            overwritten.append((state, end[state]))
            end[state] = size
            state = self.link[state]
        return overwritten

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
