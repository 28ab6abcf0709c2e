"""What scoring gives back: plain data, and the normalisations computed from it."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

MEASURES = ("logprob", "per_token", "per_character", "per_byte", "pmi")  # properties of Score, to rank by


@dataclass(frozen=True)
class Score:
    """One continuation. All log-probabilities are natural, in float64 over the float32 logits.

    text: the continuation as given; None where ids were given. token_ids: what was scored, num_context tokens
    before it. logprobs: of each of them. greedy: each is the most probable token (of equals the lowest id).
    merged: a token lies across the boundary, so that what was scored begins with bytes of the context.
    num_dropped: tokens taken off the left of the context, to fit. unconditional: the sum after the
    unconditional context; None: not asked for.
    """

    text: str | None
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    greedy: bool
    num_context: int
    num_bytes: int
    merged: bool = False
    num_dropped: int = 0
    unconditional: float | None = None

    @property
    def logprob(self) -> float:
        return sum(self.logprobs)

    @property
    def per_token(self) -> float:
        return self.logprob / len(self.logprobs)

    @property
    def per_character(self) -> float | None:
        """By characters of the continuation as given, a space at its start included; None where ids were given.
        `acc_norm` of lm-evaluation-harness divides by the characters of the choice without the delimiter, mostly
        a space, that it puts before it."""
        return self.logprob / len(self.text) if self.text is not None else None

    @property
    def per_byte(self) -> float | None:
        """Of UTF-8; None where the tokens add no bytes."""
        return self.logprob / self.num_bytes if self.num_bytes else None

    @property
    def pmi(self) -> float | None:
        """log P(y|x) - log P(y); None: no unconditional context was given."""
        return None if self.unconditional is None else self.logprob - self.unconditional


class Scores(list[Score]):
    """The scores in the order of the continuations, and what they cost.

    num_computed: positions of forward passes. num_reused: positions that one run for each continuation would
    have computed beyond these.
    """

    def __init__(self, scores: list[Score], num_computed: int, num_reused: int) -> None:
        super().__init__(scores)
        self.num_computed = num_computed
        self.num_reused = num_reused


@dataclass(frozen=True)
class Perplexity:
    """logprob: sum over all num_tokens tokens, each predicted once. window, stride: tokens."""

    logprob: float
    num_tokens: int
    num_bytes: int
    num_words: int
    num_windows: int
    window: int
    stride: int

    @property
    def perplexity(self) -> float:
        """Per token."""
        return _exp(-self.logprob / self.num_tokens)

    @property
    def word_perplexity(self) -> float:
        """Words as lm-evaluation-harness splits them: at each piece of white space."""
        return _exp(-self.logprob / self.num_words)

    @property
    def byte_perplexity(self) -> float:
        return _exp(-self.logprob / self.num_bytes)

    @property
    def bits_per_byte(self) -> float:
        return -self.logprob / self.num_bytes / log(2)


def _exp(value: float) -> float:
    return exp(value) if value < 709 else float("inf")


@dataclass(frozen=True)
class StringProbability:
    """lower <= P <= upper, up to the rounding of float64. num_nodes: token paths whose next-token distribution
    was looked at. num_pruned: those that were left, whose whole mass is upper - lower."""

    lower: float
    upper: float
    num_nodes: int
    num_pruned: int

    @property
    def exact(self) -> bool:
        return self.num_pruned == 0
