"""A constraint made ready for one vocabulary, and the cache of those that were."""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING

from pellucid.constraints import guard
from pellucid.constraints.base import Source
from pellucid.constraints.choices import choices_grammar
from pellucid.constraints.follower import Follower
from pellucid.constraints.grammar import lark_grammar
from pellucid.constraints.json_schema import json_grammar, literals, refusal
from pellucid.constraints.limits import check_size, parser_limits
from pellucid.constraints.regex import regex_grammar
from pellucid.constraints.state import NOTHING_SATISFIES, MatcherState, first_line
from pellucid.constraints.vocabulary import build_vocabulary
from pellucid.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from pellucid.text.tokenizer import Tokenizer

CACHED = 128  # compiled constraints that a compiler keeps
CACHED_BYTES = (
    4 * 1024 * 1024
)  # and the most text of theirs; what is compiled takes up to some fifty times as much


class Compiled:
    """Immutable. ignored: what a lenient schema asks and is not followed, in llguidance's words."""

    def __init__(
        self, source: Source, root: MatcherState, vocabulary_size: int, ignored: tuple[str, ...]
    ) -> None:
        self.source = source
        self.vocabulary_size = vocabulary_size
        self.ignored = ignored
        self._root = root
        self._lock = threading.Lock()

    def state(self) -> MatcherState:
        """A state before any token."""
        with self._lock:
            return self._root.copy()

    def follower(self) -> Follower:
        """States of the samples of one request, kept in step with their histories."""
        return Follower(self.state)

    def __repr__(self) -> str:
        return f"<Compiled {self.source.kind}: {self.source.text:.60}>"


class Compiler:
    """Compiles for one vocabulary, whose tables are built the first time; safe from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int, eos_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._eos_ids = sorted(eos_ids)
        self._vocabulary: LLTokenizer | None = None
        self._cache: OrderedDict[Hashable, Compiled] = OrderedDict()
        self._lock = threading.Lock()
        self._single_bytes: frozenset[bytes] | None = None  # made when first needed
        self._wide: frozenset[str] = frozenset()

    def vocabulary(self) -> LLTokenizer:
        if self._vocabulary is None:
            self._vocabulary = build_vocabulary(self._tokenizer, self._vocabulary_size, self._eos_ids)
        return self._vocabulary

    def compile(self, source: Source) -> Compiled:
        """ConstraintError: malformed, impossible, too large, or with parts that cannot be followed."""
        with self._lock:
            found = self._cache.get(source)
            if found is None:
                found = self._compile(source)
                self._cache[source] = found
                while len(self._cache) > CACHED or self._cached_bytes() > max(CACHED_BYTES, len(source.text)):
                    self._cache.popitem(last=False)
            self._cache.move_to_end(source)
            return found

    def _cached_bytes(self) -> int:
        return sum(len(compiled.source.text) for compiled in self._cache.values())

    def _compile(self, source: Source) -> Compiled:
        from llguidance import LLMatcher

        check_size(source.kind, source.text)
        try:
            grammar = _MAKERS[source.kind](source)
        except ConstraintError:
            raise
        except (ValueError, RecursionError) as error:
            raise ConstraintError(f"{source.kind}: {_told(source, first_line(str(error)))}") from None
        if not guard.is_plain(source):
            guard.check(source, grammar)
        matcher = LLMatcher(self.vocabulary(), grammar, log_level=0, limits=parser_limits())
        if matcher.is_error() and source.kind == "json_schema":
            raise ConstraintError(f"json_schema: {_told(source, first_line(matcher.get_error()))}")
        root = MatcherState(matcher, source.kind, self._vocabulary_size, frozenset(self._eos_ids))
        self._check_begins(source, root)
        if source.kind == "choices":
            self._check_choices(source)
        else:
            self._tell_missing(source)
        ignored = tuple(first_line(warning) for warning in matcher.get_grammar_warnings())
        return Compiled(source, root, self._vocabulary_size, ignored)

    def _check_begins(self, source: Source, root: MatcherState) -> None:
        """ConstraintError: no token can come first. (The mask is computed once here, for all that begin.)"""
        problem = ""
        try:
            if root.mask().any():
                return
        except ConstraintError as error:
            problem = str(error).removeprefix(f"{source.kind}: ")
        text = source.text  # JSON may write any character as \u....
        if source.kind in ("json_schema", "choices"):
            text = json.dumps(json.loads(text), ensure_ascii=False)
        missing = self._missing_characters(text) if problem in ("", NOTHING_SATISFIES) else ""
        if missing:
            problem = f"no text satisfies it that this vocabulary can spell: it has no tokens for {missing}"
        raise ConstraintError(f"{source.kind}: {problem or 'no text of this vocabulary satisfies it'}")

    def _check_choices(self, source: Source) -> None:
        """ConstraintError: a choice could never come, because the vocabulary has no tokens that spell it."""
        from llguidance import LLMatcher

        for choice in json.loads(source.text):
            if all(self._in_single_bytes(c) for c in choice if c > "\x7f"):
                continue
            grammar = choices_grammar(json.dumps([choice]))
            matcher = LLMatcher(self.vocabulary(), grammar, log_level=0, limits=parser_limits())
            if not any(matcher.compute_bitmask()) or matcher.is_error():
                missing = self._missing_characters(choice)
                why = f": it has no tokens for {missing}" if missing else ""
                raise ConstraintError(
                    f"choices: this vocabulary cannot spell {choice!r:.60}{why}; write it with other characters"
                )

    def _tell_missing(self, source: Source) -> None:
        """Warns of characters that stand in the constraint and that no output can have: what needs one never comes.
        (Whether anything needs one only its author knows: [^é] does not.)"""
        missing = self._missing_characters(_LITERALS[source.kind](source.text))
        if missing:
            warnings.warn(
                f"{source.kind}: this vocabulary has no tokens for {missing}; what needs them never comes",
                stacklevel=2,
            )

    def _missing_characters(self, text: str) -> str:
        """Those beyond ASCII, once each, that no tokens spell; "" if none."""
        found = [c for c in dict.fromkeys(text) if c > "\x7f" and not self._can_be_spelled(c)]
        return ", ".join(repr(c) for c in found[:8]) + (", ..." if len(found) > 8 else "")

    def _can_be_spelled(self, character: str) -> bool:
        """Whether tokens one after the other can bring it: one token, several of one byte, or any pieces of it, of
        which the first may end a longer token, and the last begin one."""
        if self._in_single_bytes(character) or character in self._wide:
            return True
        data = character.encode("utf-8", "surrogatepass")
        tokenizer = self._tokenizer
        texts = (i for i in range(tokenizer.vocabulary_size) if i not in tokenizer.special_ids)
        pieces = {tokenizer.token_bytes(i) for i in texts}
        reached = {n for n in range(1, len(data)) if any(piece.endswith(data[:n]) for piece in pieces)}
        for n in range(1, len(data)):  # ascending: a piece leads further
            if n in reached:
                if any(piece.startswith(data[n:]) for piece in pieces):
                    return True
                reached |= {stop for stop in range(n + 1, len(data)) if data[n:stop] in pieces}
        return False

    def _in_single_bytes(self, character: str) -> bool:
        if self._single_bytes is None:
            pieces = [self._tokenizer.token_bytes(i) for i in range(self._tokenizer.vocabulary_size)]
            self._single_bytes = frozenset(piece for piece in pieces if len(piece) == 1)
            self._wide = frozenset(
                c for piece in pieces for c in piece.decode("utf-8", "ignore") if c > "\x7f"
            )
        return all(bytes([b]) in self._single_bytes for b in character.encode("utf-8", "surrogatepass"))


def _told(source: Source, message: str) -> str:
    return refusal(source.text, message) if source.kind == "json_schema" else message


# What of a constraint's text may have to stand in the output as it is written. Of a grammar that is all but comments.
_LITERALS: dict[str, Callable[[str], str]] = {
    "json_schema": literals,
    "regex": lambda text: text,
    "grammar": lambda text: re.sub(r"(//|#).*", "", text),
}

_MAKERS: dict[str, Callable[[Source], str]] = {
    "json_schema": lambda s: json_grammar(s.text, compact=s.compact, lenient=s.lenient),
    "regex": lambda s: regex_grammar(s.text),
    "grammar": lambda s: lark_grammar(s.text),
    "choices": lambda s: choices_grammar(s.text),
}
