"""Stop strings in a text that comes in pieces: found across the borders of the pieces, never shown.

The match is the one that is complete first; of those that are complete at the same character, the longest.
"""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.errors import UsageError


class StopStrings:
    """One search. What could still become a stop string is held back until that is decided."""

    def __init__(self, strings: Sequence[str]) -> None:
        if isinstance(strings, str):
            raise UsageError(f"stop strings are a list of strings; write [{strings!r}]")
        for string in strings:
            if not isinstance(string, str) or not string:
                raise UsageError(f"a stop string is a text of at least one character, got {string!r}")
        self._strings = tuple(dict.fromkeys(strings))
        self._failures = {string: _failures(string) for string in self._strings}
        self._held = ""
        self._matched: str | None = None

    def push(self, delta: str) -> tuple[str, str | None]:
        """(text that no stop string can take back any more, the stop string if one is complete).

        After a match nothing more is given: the stop string and what follows it are dropped.
        """
        if self._matched is not None:
            return "", self._matched
        text = self._held + delta
        best: tuple[int, int, str] | None = None  # (where it ends, where it begins, which)
        for string in self._strings:
            start = text.find(string)
            if start >= 0 and (best is None or (start + len(string), start) < best[:2]):
                best = (start + len(string), start, string)
        if best is not None:
            self._matched, self._held = best[2], ""
            return text[: best[1]], self._matched
        safe = len(text) - max((self._begun(string, text) for string in self._strings), default=0)
        self._held = text[safe:]
        return text[:safe], None

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    def _begun(self, string: str, text: str) -> int:
        """How many of the last characters of `text` begin `string` (at most all but one of its own)."""
        failures = self._failures[string]
        length = 0
        for character in text[-(len(string) - 1) :] if len(string) > 1 else "":
            while length and string[length] != character:
                length = failures[length - 1]
            length += string[length] == character
        return length


def _failures(string: str) -> list[int]:
    """Knuth-Morris-Pratt: for each prefix, the length of its longest proper suffix that is a prefix too."""
    out = [0] * len(string)
    length = 0
    for i in range(1, len(string)):
        while length and string[length] != string[i]:
            length = out[length - 1]
        length += string[length] == string[i]
        out[i] = length
    return out
