"""Where the activations of one sequence go while it runs: a `types.Watch` that looks and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from pellucid.errors import PellucidError
from pellucid.glass.captured import Captured
from pellucid.glass.flow import PIECE, Capture
from pellucid.glass.shards import SHARD_BYTES, ShardFolder
from pellucid.glass.sites import Place
from pellucid.glass.slabs import Slab
from pellucid.models.base import Model
from pellucid.ops.base import SITES
from pellucid.types import Array, Float32, Int32, Watch

_DTYPES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,
}  # bfloat16 as its bits
_ENDLESS = 1 << 62


class CaptureError(PellucidError):
    """A capture met its budget, or a value that its dtype cannot hold."""


@lru_cache(maxsize=256)
def _same(looks: frozenset[Place]) -> frozenset[Place]:
    """The first of equal sets, so that comparing the sets of several captures compares addresses."""
    return looks


class CaptureWatch:
    """types.Watch. Memory comes in pieces of 32 positions, [32, layers, width] for each site, by position."""

    changes: frozenset[tuple[str, int]] = frozenset()

    def __init__(
        self, capture: Capture, model: Model, num_prompt: int, model_print: Mapping[str, str] | None = None
    ) -> None:
        """model_print: which model that is, as `fingerprint.of_model` says; None: it is not to be told."""
        self.capture, self.model, self.model_print = capture, model, model_print
        self.forks: list[CaptureWatch] = []  # of a request with several samples, in their order:
        self.keep_forks = (
            False  # only then; and no fork knows its parent, so that memory goes with the last reference
        )
        self._layers = capture.layers_of(model)
        self._widths = capture.widths(model)
        self._index = {
            (site, layer): i for site, layers in self._layers.items() for i, layer in enumerate(layers)
        }
        self.looks = _same(frozenset(self._index))
        self._last = max(self.looks, key=lambda place: (place[1], SITES.index(place[0])))  # of a pass
        start, stop = capture.span(num_prompt)
        self._start, self._stop = start, _ENDLESS if stop is None else stop
        self._full_at = self._stop  # positions from here on are left out
        self._end = start  # pieces are there up to here
        self._pieces: dict[str, list[Array]] = {site: [] for site in self._layers}
        self._slab = Slab()
        self._have = np.zeros(0, np.bool_)  # by position - start
        self._plain = capture.dtype == "float32" and capture.reduce is None
        self._piece_bytes = capture.position_bytes(model) * PIECE
        self._num_spilled = 0  # leading pieces that are in files
        self._shards = None if capture.to is None else ShardFolder(capture.to)
        self._error: CaptureError | None = None  # met amid a pass, which must not fail for others

    # --- types.Watch ----------------------------------------------------------------------------------
    def first_needed(self) -> int | None:
        if self.capture.reuse:
            return None
        first = self._start + int(np.argmin(self._have)) if not self._have.all() else self._end
        return first if first < min(self._stop, self._full_at) else None

    def prepare(self, start: int, stop: int) -> None:
        if self._error is not None:
            raise self._error
        if self._num_spilled and start < self._start + self._num_spilled * PIECE:
            self._fetch_back()
        stop = min(stop, self._full_at)
        if self._end < stop:
            if self._shards is not None:
                self._spill(start)
            self._take_memory(stop)

    def take(self, site: str, layers: tuple[int, ...], start: int, rows: Float32) -> None:
        first, stop = max(start, self._start), min(start + rows.shape[1], self._full_at)
        if first >= stop:
            return
        if first != start or stop != start + rows.shape[1]:
            rows = rows[:, first - start : stop - start]
        try:
            values = self._stored(site, rows)
        except CaptureError as error:
            self._error = error
            return
        which: slice | int = slice(None) if len(layers) > 1 else self._index[site, layers[0]]
        if len(layers) not in (1, len(self._layers[site])):
            raise RuntimeError(f"expected one or all layers of {site}, got {layers}")
        at = first - self._start
        while at < stop - self._start:
            number, offset = divmod(at, PIECE)
            count = min(PIECE - offset, stop - self._start - at)
            begin = at + self._start - first
            part = values[:, begin : begin + count]
            piece = self._pieces[site][number]
            if isinstance(which, int):
                piece[offset : offset + count, which] = part[0]
            elif count == 1:
                piece[offset] = part[:, 0]
            else:
                piece[offset : offset + count] = part.swapaxes(0, 1)
            at += count
        if site == self._last[0] and layers[-1] == self._last[1]:
            self._have[first - self._start : stop - self._start] = True

    def row_taker(self, site: str, layers: tuple[int, ...]) -> Callable[[int, Float32], None] | None:
        """`take` of one row [layers, width] at a position, which is what decoding brings: the same, quickly. None: not
        of these layers, or values are not kept as they come."""
        if not self._plain or len(layers) != len(self._layers[site]):
            return None
        pieces, first, last = self._pieces[site], self._start, site == self._last[0]

        def take_row(position: int, row: Float32) -> None:
            if first <= position < self._full_at:
                number, offset = divmod(position - first, PIECE)
                pieces[number][offset] = row
                if last:
                    self._have[position - first] = True

        return take_row

    def change(self, site: str, layer: int, start: int, x: Float32) -> Float32:
        return x

    def cut(self, num_positions: int) -> None:
        kept = max(0, num_positions - self._start)
        if kept < self._num_spilled * PIECE:
            self._fetch_back()
        self._have[kept:] = False

    def fork(self) -> CaptureWatch:
        if self._shards is not None and not self.keep_forks:
            raise CaptureError(
                "a capture that writes files cannot be forked: leave out to=, and save it at the end"
            )
        if self._num_spilled:
            self._fetch_back()
        child = CaptureWatch(self.capture, self.model, 1, self.model_print)
        child._start, child._stop = self._start, self._stop
        child._full_at, child._end = self._full_at, self._end
        child._pieces = {site: [piece.copy() for piece in pieces] for site, pieces in self._pieces.items()}
        child._have = self._have.copy()
        if self.keep_forks:
            self.forks.append(child)
            if self.capture.to is not None:
                child._shards = ShardFolder(self.capture.to / f"sample-{len(self.forks)}")
        return child

    @property
    def span(self) -> tuple[int, int | None]:
        """[start, stop) of the positions that are kept; stop None: to the end."""
        return self._start, None if self._stop == _ENDLESS else self._stop

    # --- afterwards -----------------------------------------------------------------------------------
    def captured(self, token_ids: Sequence[int] | Int32) -> Captured:
        """What there is, of a sequence of these tokens: to be called between passes, and again after the next. With
        `to`, everything is in files then. CaptureError: a value was too large for the dtype."""
        if self._error is not None:
            raise self._error
        have = self._have[: len(np.trim_zeros(self._have, "b"))]
        positions = (np.flatnonzero(have) + self._start).astype(np.int32)
        pieces = {site: (list(made), positions - self._start) for site, made in self._pieces.items()}
        found = Captured(
            capture=self.capture,
            layers=self._layers,
            token_ids=np.array(token_ids, np.int32),
            positions=positions,
            missing=self._missing(have, len(token_ids) - 1),
            num_layers=len(self.model.layers),
            model_print=self.model_print,
            pieces=pieces,
        )
        if self._shards is None:
            return found
        self._write(len(self._have) // PIECE, final=have)
        return self._shards.finish(found)

    def _missing(self, have: Array, num_computed: int) -> tuple[tuple[int, int, str], ...]:
        """Runs of positions that are wanted and not there, and why."""
        edges = np.flatnonzero(np.diff(np.concatenate([[True], have, [True]]))) + self._start
        runs = [
            (int(a), int(b), "taken from the prefix cache")
            for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]
        if self._full_at < min(self._stop, num_computed):
            runs.append((self._full_at, min(self._stop, num_computed), "the budget was spent"))
        return tuple(runs)

    # --- memory and files -----------------------------------------------------------------------------
    def _take_memory(self, stop: int) -> None:
        """Pieces for positions up to stop. CaptureError where the budget is met, unless it is to stop there."""
        budget = self.capture.budget
        more = -(-(stop - self._end) // PIECE)
        room = more if budget is None else budget // self._piece_bytes - len(self._have) // PIECE
        if room < more:
            end = self._end + room * PIECE
            if self.capture.when_full == "error":
                raise CaptureError(
                    f"capture: position {end} would exceed the budget of {budget} bytes ({self._piece_bytes // PIECE} "
                    'a position); raise it, capture less, or give when_full="stop"'
                )
            more, self._full_at = room, end
        dtype = _DTYPES[self.capture.dtype]
        for _ in range(more):
            for site, layers in self._layers.items():
                self._pieces[site].append(self._slab.array((PIECE, len(layers), self._widths[site]), dtype))
        self._have = np.concatenate([self._have, np.zeros(more * PIECE, np.bool_)])
        self._end += more * PIECE

    def _spill(self, num_settled: int) -> None:
        """Writes what no draft and no later pass changes, once it is as much as a shard."""
        settled = (num_settled - self._start) // PIECE
        if (settled - self._num_spilled) * self._piece_bytes >= SHARD_BYTES:
            self._write(settled)

    def _write(self, stop: int, final: Array | None = None) -> None:
        first = self._num_spilled
        have = (self._have if final is None else final)[first * PIECE : stop * PIECE]
        index = np.flatnonzero(have)
        if self._shards is None or not len(index):
            return
        parts = {}
        for site, pieces in self._pieces.items():
            joined = np.concatenate(pieces[first:stop])
            parts[site] = joined[index]
            pieces[first:stop] = [joined[:0]] * (stop - first)
        self._shards.write(parts, (index + first * PIECE + self._start).astype(np.int32))
        self._num_spilled = stop

    def _fetch_back(self) -> None:
        """After a cut into what is in files: all of it is in memory again."""
        if self._shards is None:
            return
        for positions, parts in self._shards.take_back():
            for site, values in parts.items():
                for position, row in zip((positions - self._start).tolist(), values, strict=True):
                    number, offset = divmod(position, PIECE)
                    if not len(self._pieces[site][number]):
                        self._pieces[site][number] = np.empty((PIECE, *row.shape), row.dtype)
                    self._pieces[site][number][offset] = row
        for site, pieces in self._pieces.items():
            shape = (PIECE, len(self._layers[site]), self._widths[site])
            pieces[:] = [p if len(p) else np.empty(shape, _DTYPES[self.capture.dtype]) for p in pieces]
        self._num_spilled = 0

    def _stored(self, site: str, rows: Float32) -> Array:
        """rows [layers, positions, width] as they are kept."""
        values: Array = rows
        if self.capture.reduce == "norm":
            values = np.sqrt(np.einsum("lpw,lpw->lp", rows, rows, dtype=np.float64))[..., None].astype(
                np.float32
            )
        if self.capture.dtype == "float32":
            return values
        if self.capture.dtype == "bfloat16":
            return to_bfloat16(values)
        try:
            with np.errstate(over="raise"):
                return values.astype(np.float16)
        except FloatingPointError:
            largest = float(np.abs(values).max())
            raise CaptureError(
                f'capture: {site} has a value of {largest:g}, beyond float16\'s 65504; give dtype="bfloat16"'
            ) from None


def store_of(watch: Watch | None) -> CaptureWatch | None:
    """The capture among what watches a sequence."""
    if isinstance(watch, CaptureWatch):
        return watch
    parts: tuple[Watch, ...] = getattr(watch, "watches", ())
    return next((part for part in parts if isinstance(part, CaptureWatch)), None)


def to_bfloat16(x: Float32) -> Array:
    """The bits (uint16) of x rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    wrong = np.isnan(x)
    if wrong.any():
        rounded[wrong] = 0x7FC0
    return rounded
