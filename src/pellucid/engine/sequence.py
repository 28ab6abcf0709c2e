"""One sequence: its tokens, how many of them are computed, and which blocks hold their keys and values."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from pellucid.types import Float32, Int32, Watch

if TYPE_CHECKING:
    from pellucid.engine.pair import Pair

_NO_IDS: Int32 = np.empty(0, np.int32)


class Sequence:
    """State, not behaviour: the BlockPool changes `block_table`, the Scheduler decides, the Engine appends.

    num_computed: positions [0, num_computed) have their keys and values in the blocks; it is < num_tokens
    while the sequence waits for its next token. num_registered: leading blocks known to the prefix cache.
    table_version changes whenever block_table does. first_logit: logits are wanted of positions from it on;
    None: of the last token. salt: prefixes are shared among sequences of equal salt only. watch: who looks at its
    rows, or changes them.

    num_rows: rows computed for this sequence so far; num_recomputed of them for positions that it had had
    and lost to others, which are those below num_lost. num_reused: positions that it got without computing
    them, from the cache or from the sequence that it was forked from. num_dropped: tokens that `drop` took out.
    pair: with a companion, or as one.
    """

    __slots__ = (
        "_buffer",
        "_dropped_output",
        "block_table",
        "drafts",
        "first_logit",
        "num_computed",
        "num_dropped",
        "num_lost",
        "num_prompt",
        "num_recomputed",
        "num_registered",
        "num_reused",
        "num_rows",
        "num_tokens",
        "pair",
        "request_id",
        "salt",
        "sample_index",
        "stop_ids",
        "table_version",
        "watch",
    )

    def __init__(
        self,
        token_ids: Int32,
        *,
        request_id: Hashable = None,
        sample_index: int = 0,
        stop_ids: Int32 = _NO_IDS,
        salt: Hashable = None,
        watch: Watch | None = None,
    ) -> None:
        self.watch = watch
        self.num_tokens = self.num_prompt = len(token_ids)
        self._buffer: Int32 = np.empty(max(64, 2 * len(token_ids)), np.int32)
        self._buffer[: self.num_tokens] = token_ids
        self.request_id = request_id
        self.sample_index = sample_index
        self.stop_ids = stop_ids
        self.salt = salt
        self.pair: Pair | None = None
        self.first_logit: int | None = None
        self.block_table: list[int] = []
        self.table_version = 0
        self.num_computed = 0
        self.num_registered = 0
        self.num_rows = 0
        self.num_recomputed = 0
        self.num_lost = 0
        self.num_reused = 0
        self.num_dropped = 0
        self._dropped_output = 0
        self.drafts: list[int] = []

    @property
    def token_ids(self) -> Int32:
        """[num_tokens] a view, prompt and output; valid until the next append."""
        return self._buffer[: self.num_tokens]

    @property
    def num_generated(self) -> int:
        return self.num_tokens - self.num_prompt + self._dropped_output

    @property
    def num_behind(self) -> int:
        """How many of its tokens are still to be computed; drafts not counted."""
        return self.num_tokens - self.num_computed

    @property
    def companion_logits(self) -> Float32 | None:
        """float32 [vocabulary] of the companion, while a token is chosen; None: there is none."""
        return None if self.pair is None else self.pair.companion_row

    @property
    def first_wanted(self) -> int:
        """The first position whose logits are wanted."""
        return self.num_tokens - 1 if self.first_logit is None else self.first_logit

    @property
    def first_fresh(self) -> int:
        """The first position that is not to be taken from the prefix cache."""
        needed = None if self.watch is None else self.watch.first_needed()
        return self.first_wanted if needed is None else min(self.first_wanted, needed)

    def rows(self, start: int, stop: int) -> Int32:
        """Tokens [start, stop), drafts after the last token included; a view."""
        return self._buffer[start:stop]

    def append(self, token_id: int) -> None:
        self._room(self.num_tokens + 1)
        self._buffer[self.num_tokens] = token_id
        self.num_tokens += 1

    def extend(self, ids: Int32) -> None:
        self._room(self.num_tokens + len(ids))
        self._buffer[self.num_tokens : self.num_tokens + len(ids)] = ids
        self.num_tokens += len(ids)

    def shorten(self, num_tokens: int) -> None:
        """Forgets the tokens from num_tokens on (BlockPool.truncate forgets their keys and values)."""
        self.num_tokens = num_tokens
        self.num_lost = min(self.num_lost, num_tokens)
        if self.watch is not None:
            self.watch.cut(num_tokens)

    def drop(self, start: int, count: int) -> None:
        """Takes out the tokens [start, start + count); later ones move to the front (BlockPool.truncate forgets
        their keys and values, which are those of their old positions)."""
        of_prompt = min(max(0, self.num_prompt - start), count)
        kept = self._buffer[start + count : self.num_tokens].copy()
        self._buffer[start : start + len(kept)] = kept
        self.num_tokens -= count
        self.num_prompt -= of_prompt
        self.num_dropped += count
        self._dropped_output += count - of_prompt
        self.num_lost = min(self.num_lost, start)
        if self.watch is not None:
            self.watch.cut(start)

    def advance(self, rows: int) -> None:
        """So many rows of it have been computed; drafts are among them, but count once they are accepted."""
        self.num_rows += rows
        start = self.num_computed
        self.num_computed += min(rows, self.num_behind)
        if self.num_lost > start:
            self.num_recomputed += min(self.num_lost, self.num_computed) - start

    def draft(self, drafts: list[int]) -> None:
        """Guesses that the next pass computes after the last token; they are not tokens of the sequence."""
        self._room(self.num_tokens + len(drafts))
        self._buffer[self.num_tokens : self.num_tokens + len(drafts)] = drafts
        self.drafts = drafts

    def fork(self, sample_index: int) -> Sequence:
        """The same tokens as another sample; it has no blocks yet (BlockPool.fork shares them)."""
        child = Sequence(
            self.token_ids,
            request_id=self.request_id,
            sample_index=sample_index,
            stop_ids=self.stop_ids,
            salt=self.salt,
            watch=None if self.watch is None else self.watch.fork(),
        )
        child.num_prompt = self.num_prompt
        child.num_dropped, child._dropped_output = self.num_dropped, self._dropped_output
        return child

    def _room(self, num_tokens: int) -> None:
        if num_tokens > len(self._buffer):
            grown: Int32 = np.empty(max(num_tokens, 2 * len(self._buffer)), np.int32)
            grown[: self.num_tokens] = self.token_ids
            self._buffer = grown
