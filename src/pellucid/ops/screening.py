"""Choices from bounds of the logits: the certified partial head (native/screen.h), and when it is worth its while."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pellucid.types import Float32

SPLIT_FORMATS: Final = ("Q8_0",)  # of heads that can be screened: quant/packed.h

# A screen reads about 0.56 of the head, and each panel that is left in question once more and whole.
MOST_RESCORED: Final = 0.4  # of the panels, above which all logits cost less
MEMORY: Final = 1 / 8  # of the newest choice in the running mean
TRIED_EVERY: Final = 32  # passes, while it does not pay


class Screening:
    """Whether to screen the next pass, judged by what the last choices had to compute. A matter of time alone: the
    choice is the same either way."""

    def __init__(self) -> None:
        self.mean_rescored = 0.0
        self.saved_bytes = 0.0  # of weights, in the mean of the last choices
        self._num_skipped = 0

    def pays(self) -> bool:
        if self.mean_rescored <= MOST_RESCORED:
            return True
        self._num_skipped += 1
        return self._num_skipped % TRIED_EVERY == 0

    def note(self, part_rescored: float, head: Any) -> None:
        self.mean_rescored += MEMORY * (part_rescored - self.mean_rescored)
        self.saved_bytes = head.lower_bytes - self.mean_rescored * head.num_bytes


class ScreenedRow:
    """types.Screened of the runner's matrix `head`; x: float32 [1, width], the hidden state under it."""

    def __init__(self, runner: Any, screening: Screening, x: Float32, head: Any) -> None:
        self.x, self.head = x, head
        self.screen = runner.make_screen(head)
        self._runner, self._screening = runner, screening
        runner.screen(x, self.screen)

    def choose(
        self, temperature: float, min_p: float, seed: int, sample: int, position: int, stream: int
    ) -> int | None:
        token = self._runner.settle(self.screen, temperature, min_p, seed, sample, position, stream)
        self._screening.note(self.screen.num_rescored / self.screen.num_panels, self.head)
        return token if token >= 0 else None

    def exact(self) -> Float32:
        out: Float32 = np.empty((1, self.head.shape[0]), np.float32)
        self._runner.linear(self.x, [self.head], [out])
        return out
