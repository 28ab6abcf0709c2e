"""The protocol of a logits processor, and the declaration of its parameters.

To add one, copy `min_p.py`: one frozen dataclass, its fields declared with `parameter(...)`. The keyword of
SamplingParams, its validation, the command line's flag and the JSON schema are derived from those fields.

Processors run in ascending `order`:

    100 logit_bias   200 allowed_ids   210 banned_ids   300 min_tokens   400 penalties
    500 temperature   600 top_k   700 top_p   800 min_p

so temperature comes first and the cuts see the tempered distribution, each renormalised over what the one
before it left (as in transformers and vLLM; llama.cpp applies its temperature last). Wherever an order of
tokens matters it is logit descending, then id ascending.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, Protocol

from pellucid.registry import Registry
from pellucid.types import Float32, Int32

# Which logits of a row a processor must know. "token": a token's new logit follows from its own logit, its id and
# the history. "top": also from the largest logits, so a row that is exact in its head and bounded below it is
# enough (top-k, min-p). "all": from every logit (probabilities, means).
Scope = Literal["token", "top", "all"]


class History(Protocol):
    """What a processor may look at: one sequence up to the position whose token is being chosen."""

    @property
    def token_ids(self) -> Int32:
        """[tokens] prompt and output so far; its length is the absolute position being chosen."""

    @property
    def num_prompt(self) -> int:
        """How many of token_ids are the prompt."""

    @property
    def sample_index(self) -> int:
        """Which of the request's `n` samples, from 0."""

    @property
    def stop_ids(self) -> Int32:
        """The ids that would end the sequence (end of text unless ignored, and stop_token_ids), ascending."""


class LogitsProcessor(Protocol):
    """A pure function of (history, logits); a frozen dataclass whose fields are its parameters.

    With every field at its default it is the identity, and is left out. `keeps_argmax`: it never changes
    which token is the largest, so greedy decoding can leave it out too. `scope`: how much of the row it reads.
    """

    order: ClassVar[int]
    keeps_argmax: ClassVar[bool]
    scope: ClassVar[Scope]

    def __call__(self, history: History, logits: Float32) -> Float32:
        """float32 [vocabulary] -> the same shape. The array belongs to the call: change it in place and
        return it, or return another. -inf excludes a token."""


samplers: Registry[type[LogitsProcessor]] = Registry("pellucid.sampling")


def parameter(
    default: Any,
    kind: str,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    optional: bool = False,
) -> Any:
    """A dataclass field that is a parameter. kind: "int", "float", "bool", "ids", "bias" or "strings".
    minimum <= value <= maximum, or above < value; optional: None is allowed (and means "off")."""
    about = {
        "kind": kind,
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "optional": optional,
    }
    return dataclasses.field(default=default, metadata={"parameter": about})
