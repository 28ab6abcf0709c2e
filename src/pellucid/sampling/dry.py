"""dry: don't repeat yourself, a penalty that grows with the length of the repetition (p-e-w 2024,
oobabooga/text-generation-webui#5677)."""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from typing import ClassVar

import numpy as np

from pellucid import _native
from pellucid.errors import UsageError
from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.types import Float32, Int32


@samplers.register("dry")
@stage
class Dry:
    """A token that would prolong a repetition of m >= allowed tokens loses multiplier * base^(m - allowed).

    The repetition is a run of the last tokens that stands earlier in the window too (the longest such run that the
    token followed). It never reaches back over a breaker, such as a line break, and a token that is or holds a whole
    breaker is never penalised. A breaker that is a text stands for every way in which tokens may spell it, their
    other characters before it and after it included, as in llama.cpp (text/breakers.py).
    """

    order: ClassVar[int] = 420
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "token"

    dry_multiplier: float = parameter(
        0.0,
        "float",
        "the penalty of a token that prolongs a repetition of dry_allowed_length tokens; 0: off",
        minimum=0.0,
        maximum=1000.0,
    )
    dry_base: float = parameter(
        1.75,
        "float",
        "what each further repeated token multiplies the penalty by",
        minimum=1.0,
        maximum=100.0,
        modifies=("dry_multiplier",),
    )
    dry_allowed_length: int = parameter(
        2,
        "int",
        "the longest repetition without a penalty for the token that prolongs it, plus 1",
        minimum=0,
        maximum=2**31 - 1,
        modifies=("dry_multiplier",),
    )
    dry_last_n: int | None = parameter(
        None,
        "int",
        "repetitions are looked for in this many last tokens; None: in all",
        minimum=1,
        maximum=2**31 - 1,
        optional=True,
        modifies=("dry_multiplier",),
    )
    dry_breakers: tuple[str | tuple[int, ...], ...] = parameter(
        (),
        "breakers",
        "texts (or sequences of token ids) over which no repetition reaches back, such as a line break; on the "
        "command line 'none' for none",
        modifies=("dry_multiplier",),
    )
    spelled: tuple[tuple[int, ...], ...] | None = field(
        default=None, compare=False, metadata={"bound": "breakers"}
    )

    @cached_property
    def _sequences(self) -> list[tuple[int, ...]]:
        """The breakers as token ids; of texts all that spell or hold them (`spelled`, from the LLM)."""
        given = [each for each in self.dry_breakers if not isinstance(each, str)]
        if len(given) < len(self.dry_breakers) and self.spelled is None:
            raise UsageError("dry_breakers: texts have no token ids yet: give these parameters to an LLM")
        return [*given, *(self.spelled or ())]

    @cached_property
    def _tails(self) -> dict[int, list[tuple[int, ...]]]:
        """The first id of the breakers -> what follows it in each."""
        tails: dict[int, list[tuple[int, ...]]] = {}
        for head, *tail in self._sequences:
            tails.setdefault(head, []).append(tuple(tail))
        return tails

    @cached_property
    def _heads(self) -> Int32:
        return np.array(sorted(self._tails), np.int32)

    @cached_property
    def _spared(self) -> Int32:
        return np.array(sorted({ids[0] for ids in self._sequences if len(ids) == 1}), np.int32)

    def longest(self, window: Int32) -> int:
        """How many of the last tokens a repetition may hold: those after the last breaker in the window."""
        if not self._tails:
            return len(window)
        heads: list[int] = np.flatnonzero(np.isin(window, self._heads)).tolist()
        for i in reversed(heads):
            lengths = [
                len(tail)
                for tail in self._tails[int(window[i])]
                if window[i + 1 : i + 1 + len(tail)].tolist() == list(tail)
            ]
            if lengths:
                return len(window) - 1 - i - max(lengths)
        return len(window)

    def __call__(self, step: Step, logits: Float32) -> Float32:
        window = step.token_ids if self.dry_last_n is None else step.token_ids[-self.dry_last_n :]
        if self.dry_multiplier == 0.0 or len(window) <= self.dry_allowed_length:
            return logits
        longest = self.longest(window)
        if longest >= self.dry_allowed_length:
            _native.penalize_repeats(
                logits,
                window,
                longest,
                self.dry_allowed_length,
                self.dry_multiplier,
                self.dry_base,
                self._spared,
            )
        return logits
