"""What this machine can do at most with a model's weights, probed, to hold measured speeds against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

READ_BYTES = 256 << 20  # far beyond the caches of this class of machine
DOT_TURNS = 4_000_000
PROBES = 3  # the best counts: a ceiling is what was reached once


@dataclass(frozen=True)
class Limits:
    """read: bytes/s, in order, by all threads. dot: operations/s on 8-bit numbers in registers, where a product
    and its addition are two; None for float weights, whose kernels do not use them. bytes_per_token: packed
    weights, each read once for a pass, less what the last choices left unread (ops/screening.py). body, head:
    multiply-adds of one row in the layers and in the output projection."""

    threads: int
    read: float
    dot: float | None
    bytes_per_token: int
    body: int
    head: int

    def decode_share(self, tokens_per_second: float) -> float:
        """The part of the read bandwidth that this speed of one sequence takes (weights alone)."""
        return tokens_per_second * self.bytes_per_token / self.read

    def prefill_share(self, tokens_per_second: float, tokens: int) -> float | None:
        """The part of the 8-bit peak that this speed takes; the projection is computed for the last row only."""
        if self.dot is None:
            return None
        return 2 * (self.body + self.head / tokens) * tokens_per_second / self.dot

    def to_dict(self) -> dict[str, Any]:
        return {
            "threads": self.threads,
            "read_bytes_per_second": self.read,
            "int8_operations_per_second": self.dot,
            "bytes_per_token": self.bytes_per_token,
            "multiply_adds_per_token": self.body,
            "multiply_adds_of_the_projection": self.head,
        }


def probe(
    runner: Any, shapes: Sequence[tuple[int, int]], vocabulary_size: int, *, quantised: bool, unread: float
) -> Limits:
    """shapes: [outputs, inputs] of every packed matrix; the one with an output for each token is the head.
    unread: bytes of weights that a decoding pass leaves unread, in the mean."""
    read = max(runner.probe_read(READ_BYTES) for _ in range(PROBES))
    dot = max(runner.probe_dot(DOT_TURNS) for _ in range(PROBES)) if quantised else None
    head = sum(outputs * inputs for outputs, inputs in shapes if outputs == vocabulary_size)
    body = sum(outputs * inputs for outputs, inputs in shapes) - head
    return Limits(runner.num_threads, read, dot, runner.packed_bytes - int(unread), body, head)
