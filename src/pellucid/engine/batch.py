"""Sequences to one ragged Batch. Buffers are kept, and only what changed is written again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pellucid.engine.scheduler import Plan
from pellucid.engine.sequence import Sequence
from pellucid.types import Batch, Int32, PassWatch


class BatchBuilder:
    """`build` returns views of buffers that the next `build` overwrites: who keeps a Batch copies it."""

    def __init__(self, max_rows: int, max_sequences: int, max_blocks: int, block_size: int) -> None:
        self._block_size = block_size
        self._token_ids: Int32 = np.zeros(max_rows, np.int32)
        self._positions: Int32 = np.zeros(max_rows, np.int32)
        self._slots: Int32 = np.zeros(max_rows, np.int32)
        self._sequence_ids: Int32 = np.zeros(max_rows, np.int32)
        self._logit_rows: Int32 = np.zeros(max_rows, np.int32)
        self._tables: Int32 = np.zeros((max_sequences, max_blocks), np.int32)
        self._lengths = [0] * max_sequences  # written entries of each row of _tables
        self._owners: list[tuple[Sequence, int] | None] = [None] * max_sequences  # and its table_version
        self._last: Batch | None = None
        self._watched: tuple[Batch, Batch] | None = None  # one of `_views`, and the same with a watch

    def build(
        self,
        plan: Plan,
        *,
        all_logits: bool = False,
        choice_only: bool = False,
        watch: PassWatch | None = None,
        keep_rows: bool = False,
    ) -> Batch:
        """The next pass. Logits: of each sequence from `first_wanted` on, drafts too; all_logits: of all
        rows; choice_only: bounds of them will do. keep_rows: every row goes through the whole last layer, for who
        watches."""
        row = num_logits = 0
        for i, (sequence, rows) in enumerate(plan):
            owner = self._owners[i]
            if owner is None or owner[0] is not sequence or owner[1] != sequence.table_version:
                self._write_table(i, sequence)
            start = sequence.num_computed
            if rows == 1:
                self._write_row(row, i, sequence, start)
            else:
                self._write_rows(row, i, sequence, start, start + rows)
            first = start if all_logits else max(start, sequence.first_wanted)
            for position in range(first, start + rows):
                self._logit_rows[num_logits] = row + position - start
                num_logits += 1
            row += rows
        batch = self._views(row, len(plan), num_logits, choice_only)
        if watch is None:
            self._watched = None  # and what watched goes
            return batch
        if keep_rows and num_logits != row:
            every = np.arange(row, dtype=np.int32)
            return replace(batch, watch=watch, logit_rows=every, head_rows=batch.logit_rows)
        if self._watched is None or self._watched[0] is not batch or self._watched[1].watch is not watch:
            self._watched = batch, replace(batch, watch=watch)
        return self._watched[1]

    def forget(self, sequence: Sequence) -> None:
        """Holds nothing of a sequence that has ended."""
        self._watched = None
        for i, owner in enumerate(self._owners):
            if owner is not None and owner[0] is sequence:
                self._owners[i] = None

    def _views(self, rows: int, num_sequences: int, num_logits: int, choice_only: bool) -> Batch:
        last = self._last
        shape = (rows, num_sequences, num_logits, choice_only)
        if last is None or shape != (
            len(last.token_ids),
            len(last.block_tables),
            len(last.logit_rows),
            last.choice_only,
        ):
            last = self._last = Batch(
                self._token_ids[:rows],
                self._positions[:rows],
                self._slots[:rows],
                self._sequence_ids[:rows],
                self._tables[:num_sequences],
                self._logit_rows[:num_logits],
                choice_only,
            )
        return last

    def _write_table(self, i: int, sequence: Sequence) -> None:
        table = self._tables[i]
        length = len(sequence.block_table)
        table[:length] = sequence.block_table
        table[length : self._lengths[i]] = 0
        self._lengths[i] = length
        self._owners[i] = (sequence, sequence.table_version)

    def _write_row(self, row: int, i: int, sequence: Sequence, position: int) -> None:
        size = self._block_size
        self._token_ids[row] = sequence.rows(position, position + 1)[0]
        self._positions[row] = position
        self._slots[row] = sequence.block_table[position // size] * size + position % size
        self._sequence_ids[row] = i

    def _write_rows(self, row: int, i: int, sequence: Sequence, start: int, stop: int) -> None:
        size, end = self._block_size, row + stop - start
        positions = np.arange(start, stop, dtype=np.int32)
        self._token_ids[row:end] = sequence.rows(start, stop)
        self._positions[row:end] = positions
        self._slots[row:end] = self._tables[i][positions // size] * size + positions % size
        self._sequence_ids[row:end] = i
