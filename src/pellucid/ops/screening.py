"""Choices from bounds of the logits: the certified partial head (native/screen.h), and when it is worth its while."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pellucid.types import Float32, Screened

SPLIT_FORMATS: Final = ("Q8_0",)  # of heads that can be screened: quant/packed.h

# A screen reads about 0.56 of the head, and whole each panel that a row leaves in question; peaks read all of it.
MOST_RESCORED: Final = 0.4  # of the panels, by all rows, above which peaks cost less
MEMORY: Final = 1 / 8  # of the newest choice in the running mean
TRIED_EVERY: Final = 32  # passes, while it does not pay
MOST_ROWS: Final = 4  # beyond it the products cost more than the bytes (bench/README.md)


class Screening:
    """Whether the next pass reads half of a split head, judged by what the last choices had to compute. A matter of
    time alone: the choice is the same either way."""

    def __init__(self) -> None:
        self.mean_rescored = 0.0
        self.saved_bytes = 0.0  # of weights, in the mean of the last choices
        self.by_halves = False  # whether the pass at hand is to read half of the bits of a split head
        self._num_skipped = 0

    def pays(self, num_rows: int) -> bool:
        if not 0 < num_rows <= MOST_ROWS:
            return False
        if num_rows * self.mean_rescored <= MOST_RESCORED:
            return True
        self._num_skipped += 1
        return self._num_skipped % TRIED_EVERY == 0

    def note(self, part_rescored: float, head: Any) -> None:
        self.mean_rescored += MEMORY * (part_rescored - self.mean_rescored)
        self.saved_bytes = head.lower_bytes - self.mean_rescored * head.num_bytes


class ScreenedRow:
    """types.Screened of row number `row` of a pass; x: float32 [1, width], the hidden state under it."""

    def __init__(
        self, runner: Any, screening: Screening | None, x: Float32, head: Any, screen: Any, row: int
    ) -> None:
        self.x, self.head, self.screen, self.row = x, head, screen, row
        self._runner, self._screening = runner, screening

    def choose(
        self, temperature: float, min_p: float, seed: int, sample: int, position: int, stream: int
    ) -> int | None:
        token = self._runner.settle(self.screen, self.row, temperature, min_p, seed, sample, position, stream)
        if self._screening is not None:
            self._screening.note(self.screen.num_rescored / self.screen.num_panels, self.head)
        return token if token >= 0 else None

    def exact(self) -> Float32:
        out: Float32 = np.empty((1, self.head.shape[0]), np.float32)
        self._runner.linear(self.x, [self.head], [out])
        return out


def screened_rows(runner: Any, screening: Screening, x: Float32, head: Any) -> list[Screened]:
    """Bounds of the runner's matrix `head` times each row of x, float32 [1 to MOST_ROWS, width]."""
    screen = runner.make_screen(head, len(x))
    runner.screen(x, screen)
    return [ScreenedRow(runner, screening, x[i : i + 1], head, screen, i) for i in range(len(x))]


def peaked_rows(runner: Any, x: Float32, head: Any) -> list[Screened]:
    """The same of any quantised matrix and any number of rows: the whole product, of which the peaks stay."""
    screen = runner.make_peaks(head, len(x))
    runner.peaks(x, screen)
    return [ScreenedRow(runner, None, x[i : i + 1], head, screen, i) for i in range(len(x))]
