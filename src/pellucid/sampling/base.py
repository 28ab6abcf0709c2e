"""The protocol of a logits processor, and the declaration of its parameters.

To add one, copy `min_p.py`: one frozen dataclass (`@stage`), its fields declared with `parameter(...)`. The keyword of
SamplingParams, its validation, the command line's flag and the JSON schema are derived from those fields.

A stage is a processor under its registered name. Without an `order` of the caller's, stages run in ascending
`order`:

     10 guidance          50 constraint
    100 logit_bias      110 sequence_bias    200 allowed_ids         210 banned_ids   220 begin_suppress
    230 bad_words       300 min_tokens       310 exponential_decay   400 penalties    410 encoder_repetition
    420 dry             430 no_repeat_ngram  440 encoder_no_repeat   450 functions    460 forced_tokens
    490 dynatemp        500 temperature      580 top_h               590 top_n_sigma  600 top_k
    700 top_p           800 min_p            810 typical             820 epsilon      830 eta
    840 xtc             900 mirostat         910 adaptive_p          990 force_at

so temperature comes before the cuts, which see the tempered distribution, each renormalised over what the one
before it left (as in transformers and vLLM; llama.cpp applies its temperature last). `order.py` has the orders of
other engines. Wherever an order of tokens matters it is logit descending, then id ascending.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeVar, dataclass_transform

from pellucid.registry import Registry
from pellucid.types import Float32, Int32

# Which logits of a row a processor must know. "token": a token's new logit follows from its own logit, its id and
# the history. "top": also from the largest logits, so a row that is exact in its head and bounded below it is
# enough (top-k, min-p). "all": from every logit (probabilities, means).
Scope = Literal["token", "top", "all"]

# What a stage remembers between the tokens of one output: a few numbers, never changed in place.
State = tuple[float, ...]


class History(Protocol):
    """What the engine tells of one sequence, up to the position whose token is being chosen."""

    @property
    def token_ids(self) -> Int32:
        """[tokens] prompt and output so far; its length is the position being chosen."""

    @property
    def num_prompt(self) -> int:
        """How many of token_ids are the prompt."""

    @property
    def num_generated(self) -> int:
        """How many tokens were generated so far, those included that overflow "slide" has dropped."""

    @property
    def num_dropped(self) -> int:
        """How many tokens overflow "slide" has dropped from token_ids so far."""

    @property
    def sample_index(self) -> int:
        """Which of the request's `n` samples, from 0."""

    @property
    def stop_ids(self) -> Int32:
        """The ids that would end the sequence (end of text unless ignored, and stop_token_ids), ascending."""

    @property
    def companion_logits(self) -> Float32 | None:
        """float32 [vocabulary] of the companion sequence at this step (guidance); None: there is none."""


class Step(History, Protocol):
    """What a processor may look at: the history, the key of the noise, and its own state."""

    @property
    def seed(self) -> int:
        """0 <= seed < 2^64: with sample_index and the position it keys a stage's own noise (random.uniform)."""

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each stage that has one, by its registered name."""


class LogitsProcessor(Protocol):
    """A pure function of (step, logits); a frozen dataclass whose fields are its parameters.

    With every field at its default it is the identity, and is left out. `keeps_argmax`: it never changes
    which token is the largest, so greedy decoding can leave it out too. `scope`: how much of the row it reads.
    """

    order: ClassVar[int]
    keeps_argmax: ClassVar[bool]
    scope: ClassVar[Scope]

    def __call__(self, step: Step, logits: Float32, /) -> Float32:
        """float32 [vocabulary] -> the same shape. The array belongs to the call: change it in place and
        return it, or return another. -inf excludes a token."""


class StatefulProcessor(LogitsProcessor, Protocol):
    """One that feeds back: what it does depends on earlier choices of the same output.

    It stores nothing: its state at a position is a function of the state before, the logits there and the token
    chosen. Who runs it keeps the states by position (`memory.py`), so that rewinding and forking stay exact.
    """

    def initial(self) -> State:
        """Before the first token of the output."""

    def after(self, state: State, before: Float32, after: Float32, token_id: int) -> State:
        """Once token_id is chosen. before, after: the logits that this stage was given and gave."""


samplers: Registry[type[LogitsProcessor]] = Registry("pellucid.sampling")

T = TypeVar("T")
_making = threading.RLock()


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def stage(kind: type[T]) -> type[T]:
    """`dataclass(frozen=True)`, put off to the first instance: the methods of a dataclass are compiled from text, half
    a millisecond for each class, and of thirty stages a process uses few. Until then `fields_of` knows the fields."""

    def __new__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        with _making:  # whoever comes meanwhile waits here, and finds the class whole
            if not dataclasses.is_dataclass(kind):
                dataclasses.dataclass(frozen=True)(kind)
        return object.__new__(cls)

    kind.__new__ = __new__  # type: ignore[method-assign,assignment]
    return kind


def fields_of(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    """The fields that a class declares, by name, in their order; of a stage also before it is a dataclass."""
    if dataclasses.is_dataclass(kind):
        return {field.name: field for field in dataclasses.fields(kind)}
    return {name: value for name, value in vars(kind).items() if isinstance(value, dataclasses.Field)}


def parameter(
    default: Any,
    kind: str,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    optional: bool = False,
    choices: tuple[str, ...] = (),
    modifies: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that is a parameter; `kind` is one of `parameters.KINDS`.

    minimum <= value <= maximum, or above < value; optional: None is allowed (and means "off"). choices: of a
    "choice". modifies: the parameters of which one turns the stage on; alone this one does nothing.
    """
    about = {
        "kind": kind,
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "optional": optional,
        "choices": choices,
        "modifies": modifies,
    }
    return dataclasses.field(default=default, metadata={"parameter": about})


def shared(default: Any) -> Any:
    """A dataclass field that takes the value of the parameter of its name, which is declared elsewhere."""
    return dataclasses.field(default=default, metadata={"shared": True})
