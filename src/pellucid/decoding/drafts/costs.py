"""What a pass costs by its rows, measured as passes are made: the c(k) of a policy that never guesses at a loss."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection

KEPT = 9  # newest measurements of a number of rows; their median counts
UNCOUNTED = 2  # the first passes of a shape are recorded (ops/replay.py) and take longer
LASTS = 160  # passes after which a measurement is out of date: machines, their load and contexts change
LEAST_SLOPE = 0.02  # of one more row: less than that is noise of the clock
MOST_CURVES = 64
FIRST_REACH = 3  # rows that are added to a pass before any such pass was measured
REREAD = 24  # passes for which a curve is kept, at most: a policy asks at every token


def assumed(rows: int) -> float:
    """Passes of one row that a pass of so many costs, before anything is measured. (SmolLM2-135M Q4_1 and
    Gemma-3-270M Q4_K on two cores of a Xeon: 1.07 for 2 rows, 1.16 for 3, then about 0.3 a row.)"""
    return 1 + 0.08 * (rows - 1) if rows <= 3 else 1.16 + 0.3 * (rows - 3)


class PassCosts:
    """rows: of the pass that is being put together, so far."""

    def __init__(self) -> None:
        self.rows = 1
        self._num_passes = 0
        self._seconds: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._uncounted: dict[int, int] = {}
        self._noted_at: dict[int, int] = {}
        self._curves: OrderedDict[int, tuple[int, list[float]]] = OrderedDict()  # by rows: when made, and it

    def note(self, rows: int, seconds: float) -> None:
        """A pass of so many rows, all of them new tokens or drafts, took so long with everything around it."""
        self._num_passes += 1
        seen = self._uncounted.get(rows, 0)
        if seen < UNCOUNTED:
            self._uncounted[rows] = seen + 1
            return
        kept = self._seconds.setdefault(rows, deque(maxlen=KEPT))
        kept.append(seconds)
        self._medians[rows] = _median(kept)
        self._noted_at[rows] = self._num_passes

    @property
    def any_measured(self) -> bool:
        return bool(self._medians)

    def is_fresh(self, rows: int) -> bool:
        """Whether passes of so many rows have been measured lately."""
        return rows in self._noted_at and self._num_passes - self._noted_at[rows] <= LASTS

    @property
    def reach(self) -> int:
        """How many more rows than it has a pass may be given: not far beyond what has been measured."""
        largest = max((rows for rows in self._medians if self.is_fresh(rows)), default=self.rows)
        return FIRST_REACH + 2 * max(0, largest - self.rows)

    def seconds(self, rows: int) -> float:
        """Of a pass with so many rows; in passes of one row where nothing is measured yet."""
        if self.is_fresh(rows):
            return self._medians[rows]
        known = sorted(each for each in self._medians if self.is_fresh(each))
        below = max((each for each in known if each < rows), default=None)
        above = min((each for each in known if each > rows), default=None)
        if below is not None and above is not None:
            part = (assumed(rows) - assumed(below)) / (assumed(above) - assumed(below))
            return self._medians[below] + part * (self._medians[above] - self._medians[below])
        nearest = below if below is not None else above
        if nearest is None:
            return assumed(rows)
        return self._medians[nearest] * assumed(rows) / assumed(nearest)

    def curve(self, most: int) -> list[float]:
        """[k]: what k more rows make of the cost of the pass as it is, for k up to `most`; 1 and more."""
        kept = self._curves.get(self.rows)
        if (
            kept is None
            or len(kept[1]) <= most
            or self._num_passes - kept[0] >= min(REREAD, 2 + kept[0] // 4)
        ):
            self._curves[self.rows] = kept = self._num_passes, self._curve(most)
            if len(self._curves) > MOST_CURVES:
                self._curves.popitem(last=False)
        return kept[1]

    def _curve(self, most: int) -> list[float]:
        rows, base = self.rows, self.seconds(self.rows)
        measured = [self.seconds(rows + more) / base for more in range(most + 1)]
        return [max(cost, 1 + LEAST_SLOPE * more / rows) for more, cost in enumerate(measured)]


def _median(values: Collection[float]) -> float:
    """That of statistics, whose import takes 3 ms of every start."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2
