"""What bounds one request: its time, and what happens where the context is full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError
from pellucid.sampling.base import parameter

if TYPE_CHECKING:
    from pellucid.sampling.params import SamplingParams

OVERFLOWS = ("error", "stop", "slide")


class RequestLimits:
    """Declares parameters of the request itself, beside those of `params.py`."""

    deadline: float | None = parameter(
        None,
        "float",
        "seconds from the request's entry after which it ends (finish reason 'deadline'), keeping its text",
        above=0.0,
        maximum=1e9,
        optional=True,
    )
    overflow: str = parameter(
        "error",
        "choice",
        "where prompt and max_tokens exceed the context: an error at once; stop when it is full (finish reason "
        "'context'); or slide: drop the oldest tokens after slide_keep and compute the rest at new positions",
        choices=OVERFLOWS,
    )
    slide_keep: int = parameter(
        0,
        "int",
        "overflow 'slide': tokens at the head of the prompt that are never dropped",
        minimum=0,
        maximum=2**31 - 1,
    )
    slide_drop: int | None = parameter(
        None,
        "int",
        "overflow 'slide': tokens dropped each time; None: half of those after slide_keep",
        minimum=1,
        maximum=2**31 - 1,
        optional=True,
    )


def check_overflow(params: SamplingParams) -> None:
    """UsageError: the parameters of overflow contradict each other."""
    if params.overflow != "slide":
        for name in ("slide_keep", "slide_drop"):
            value = getattr(params, name)
            if value:
                raise UsageError(f"{name}={value} needs overflow='slide', got overflow={params.overflow!r}")
    elif params.guidance_scale != 1.0:
        raise UsageError(
            "overflow='slide' and guidance_scale: two sequences do not slide together; leave one out"
        )
    elif params.max_tokens is None:
        raise UsageError("overflow='slide' needs max_tokens: a context that slides is never full; give it")


# A parameter that says nothing without another one, and that nobody gives by habit: that other one, and an example.
SWITCHES = {
    "negative_prompt": ("guidance_scale", "guidance_scale=1.5"),
    "max_drafts": ("speculation", "speculation='auto'"),
}


def check_switches(said: Mapping[str, Any]) -> None:
    """UsageError: of what a caller said something would do nothing. What is off in so many words is no mistake."""
    for name, (switch, example) in SWITCHES.items():
        if said.get(name) is not None and switch not in said:
            raise UsageError(
                f"{name}={said[name]!r:.40} does nothing without {switch}; give that too (such as {example}), or leave "
                f"{name} out"
            )


def check_by_hand(params: SamplingParams) -> None:
    """UsageError: a generation that is driven by hand is asked for what only requests do."""
    if params.guidance_scale != 1.0:
        raise UsageError(
            f"guidance_scale={params.guidance_scale:g} is for generate, stream and chat; a generation driven by hand "
            "has no second sequence"
        )
    if params.overflow == "slide" or params.deadline is not None:
        what = "overflow='slide'" if params.overflow == "slide" else f"deadline={params.deadline}"
        raise UsageError(f"{what} is for generate, stream and chat; a generation driven by hand takes none")
    if params.speculation == "jacobi":
        raise UsageError(
            "speculation='jacobi' is for generate, stream and chat; a generation driven by hand takes 'auto'"
        )


def slide_amount(keep: int, drop: int | None, context_length: int) -> int:
    """How many tokens go each time a context of so many positions is full. UsageError: none would stay."""
    amount = drop if drop is not None else max(1, (context_length - keep) // 2)
    if keep + amount >= context_length:
        what = f"slide_keep={keep} and slide_drop={amount}"
        raise UsageError(f"{what} leave nothing of the context of {context_length}; lower one of them")
    return amount
