"""The tree of tokens after one prompt, on held sequences: a child shares every computed position of its parent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pellucid.decoding.expansion import Expansion, Path, expansion_of
from pellucid.errors import PellucidError, UsageError
from pellucid.sampling.log_probabilities import Float64, log_probabilities
from pellucid.sampling.record import Past

if TYPE_CHECKING:
    from pellucid.engine.held import Held
    from pellucid.llm import LLM
    from pellucid.sampling.sampler import Sampler
    from pellucid.types import Float32, Int32, Watch


ROWS_AT_ONCE = 64  # paths that are evaluated together


class Constraint(Protocol):
    """Where one output stands under a constraint (the part of a ConstraintState that a tree needs)."""

    def allowed(self) -> Int32:
        """Ids that may come next, ascending, end tokens among them where the text may end."""

    def advance(self, token_id: int) -> None: ...

    def copy(self) -> Any: ...


class Rows(NamedTuple):
    """float32 [vocabulary] after one path, of the prompt and of the companion's."""

    logits: Float32
    other: Float32 | None


class Space(NamedTuple):
    """Which outputs there are and how probable each is: prompt_ids, and how a row becomes log-probabilities.

    sampler: its stages are applied to every row; None: the model's own distribution. stop_ids: the tokens that end
    an output, none before min_tokens. constraint: the state before the first token. companion_ids: the negative prompt
    of guidance, whose row (`other`) goes with every row of the prompt's; None: there is none. changes: what
    interventions do to the prompt's sequence and all that follow it; it has no state."""

    prompt_ids: tuple[int, ...]
    stop_ids: Int32
    min_tokens: int
    sampler: Sampler | None
    constraint: Constraint | None
    companion_ids: tuple[int, ...] | None = None
    changes: Watch | None = None

    def logprobs(self, path: Path, logits: Float32, other: Float32 | None = None) -> Float64:
        """float64 [vocabulary], of the token after this path."""
        if self.sampler is not None:
            ids = np.array([*self.prompt_ids, *path], np.int32)
            past = Past(ids, len(self.prompt_ids), 0, self.stop_ids, companion_logits=other)
            logits = self.sampler.process(past, logits)
        return log_probabilities(logits)

    def allowed(self, path: Path) -> Int32 | None:
        """What the constraint leaves after this path; None: there is no constraint."""
        if self.constraint is None:
            return None
        state = self.constraint.copy()
        for token in path:
            state.advance(token)
        found: Int32 = np.asarray(state.allowed(), np.int32)
        return found

    def expansion(self, path: Path, rows: Rows, ranks: int) -> Expansion:
        may_end = len(path) >= self.min_tokens
        return expansion_of(self.logprobs(path, *rows), self.stop_ids, self.allowed(path), may_end, ranks)

    def renormalised(self, path: Path, rows: Rows) -> Float64:
        """As `logprobs`, of what the constraint and the minimum length leave, made to sum to 1."""
        found = self.logprobs(path, *rows)
        allowed = self.allowed(path)
        if allowed is None and len(path) >= self.min_tokens:
            return found
        kept = np.zeros(len(found), bool)
        kept[slice(None) if allowed is None else allowed] = True
        if len(path) < self.min_tokens:
            kept[self.stop_ids] = False
        found[~kept] = -np.inf
        largest = found.max()
        if largest > -np.inf:
            found -= largest + np.log(np.exp(found - largest).sum())
        return np.minimum(found, 0.0, out=found)


class Work(NamedTuple):
    """rows: positions computed in forward passes. reused: positions taken from a parent or from the prefix cache.
    passes: calls that asked the engine for rows together."""

    rows: int
    reused: int
    passes: int


_Key = tuple[int, Path]  # which of the prompts, and what follows it


class HeldTree:
    """An `Expander`. most_held: nodes that keep their keys and values; the least recently used are given back, and
    computed again, with the same bits, where a child needs them."""

    def __init__(
        self,
        llm: LLM,
        space: Space,
        salt: Hashable = None,
        most_held: int = 4096,
        watch: Watch | None = None,
    ) -> None:
        """watch: of the prompt's sequence; those of its children are its forks. UsageError: the space has
        interventions, too."""
        if watch is not None and space.changes is not None:
            raise UsageError("interventions: this search looks into the model itself; leave them out")
        self._driver = llm._open_driver()
        self._watch = watch
        self.space = space
        self._salt = salt
        self._most_held = most_held
        self._prompts = [space.prompt_ids] + (
            [space.companion_ids] if space.companion_ids is not None else []
        )
        self._held: OrderedDict[_Key, Held] = OrderedDict()
        self._known: dict[Path, Expansion] = {}
        self.keeps_expansions = True  # whether a path that is opened again needs no row
        self._rows = self._reused = self._passes = 0

    @property
    def work(self) -> Work:
        return Work(self._rows, self._reused, self._passes)

    def logits(self, paths: Sequence[Path]) -> list[Rows]:
        """The rows after each of these distinct paths, in shared passes."""
        return logits_together([(self, paths)])[0]

    def watch_of(self, path: Path) -> Watch | None:
        """Of the sequence after this path, which is held."""
        return self._held[0, path].sequence.watch

    def _keys(self, paths: Sequence[Path]) -> list[_Key]:
        return [(which, path) for which in range(len(self._prompts)) for path in paths]

    def _keep(
        self, paths: Sequence[Path], held: Sequence[Held], before: Sequence[int], rows: Sequence[Float32]
    ) -> list[Rows]:
        """held: of `_keys`, just evaluated; before: the rows that they had computed."""
        keys = self._keys(paths)
        self._passes += 1
        for key, each, was in zip(keys, held, before, strict=True):
            computed = each.cost.computed - was
            self._rows += computed
            self._reused += len(each) - computed
            each.logits = None  # a row of a large vocabulary is more memory than its keys and values
            self._held[key] = each
            self._held.move_to_end(key)
        while len(self._held) > self._most_held:
            self._held.popitem(last=False)[1].close()
        last = [row[-1] for row in rows]
        others = last[len(paths) :] or [None] * len(paths)
        return [Rows(*pair) for pair in zip(last[: len(paths)], others, strict=True)]

    def expand(self, paths: Sequence[Path], ranks: int) -> list[Expansion]:
        """Errors: PellucidError, the model or the parameters leave no token after a path."""
        found = {path: self._known[path] for path in paths if path in self._known}
        new = [path for path in paths if path not in found or len(found[path].ids) < ranks]
        for path, rows in self._each(new):
            expansion = self.space.expansion(path, rows, ranks)
            if self.space.constraint is None and not len(expansion.ids) and not expansion.ends:
                raise PellucidError(f"no token is left after {len(path)} tokens; loosen a parameter")
            found[path] = expansion
        if self.keeps_expansions:
            self._known.update(found)
        return [found[path] for path in paths]

    @property
    def stop_ids(self) -> Int32:
        return self.space.stop_ids

    def rows(self, paths: Sequence[Path]) -> list[Float64]:
        """As `RowExpander` has it. Errors: as of `expand`."""
        found: list[Float64] = []
        for path, rows in self._each(paths):
            found.append(self.space.renormalised(path, rows))
            if found[-1].max() == -np.inf:
                raise PellucidError(f"no token is left after {len(path)} tokens; loosen a parameter")
        return found

    def _each(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Rows]]:
        """The rows after each, a pass at a time, so that wide beams do not keep all rows of a large vocabulary."""
        for start in range(0, len(paths), ROWS_AT_ONCE):
            part = paths[start : start + ROWS_AT_ONCE]
            yield from zip(part, self.logits(part), strict=True)

    def release(self, path: Path) -> None:
        for which in range(len(self._prompts)):
            held = self._held.pop((which, path), None)
            if held is not None:
                held.close()

    def close(self) -> None:
        while self._held:
            self._held.popitem()[1].close()

    def _sequence(self, which: int, path: Path) -> Held:
        """A held sequence of a prompt and this path: a fork of the nearest one that is held."""
        if (which, path) in self._held:
            return self._held[which, path]
        for depth in range(len(path) - 1, -1, -1):
            nearest = self._held.get((which, path[:depth]))
            if nearest is not None:
                self._held.move_to_end((which, path[:depth]))
                child = nearest.fork()
                child.append(path[depth:])
                return child
        watch = self._watch if which == 0 else None
        if watch is not None and path:
            raise RuntimeError(
                "a watched tree keeps its root: the rows of a path are in the forks of its watch"
            )
        if which == 0 and watch is None:
            watch = self.space.changes  # without a state: it may begin anywhere
        return self._driver.hold([*self._prompts[which], *path], salt=self._salt, watch=watch)


def logits_together(wanted: Sequence[tuple[HeldTree, Sequence[Path]]]) -> list[list[Rows]]:
    """`HeldTree.logits` of several trees of one LLM, in shared passes."""
    held = [[tree._sequence(*key) for key in tree._keys(paths)] for tree, paths in wanted]
    before = [[each.cost.computed for each in part] for part in held]
    rows = wanted[0][0]._driver.evaluate([each for part in held for each in part])
    found, start = [], 0
    for (tree, paths), part, was in zip(wanted, held, before, strict=True):
        found.append(tree._keep(paths, part, was, rows[start : start + len(part)]))
        start += len(part)
    return found
