"""logits_processors: a user's Python functions as stages of the choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from pellucid.errors import PellucidError
from pellucid.sampling.base import Scope, Step, parameter, samplers, stage
from pellucid.sampling.values import name_of
from pellucid.types import Float32


class LogitsFunctionError(PellucidError):
    """A function of logits_processors failed, or returned what are no logits."""


@samplers.register("functions")
@stage
class Functions:
    """Each is called as fn(token_ids, logits) in turn: token_ids int32 [tokens], prompt and output so far,
    read-only; logits float32 [vocabulary], its own copy. What it returns is used exactly: float32 of the same shape,
    no NaN, no +inf; -inf excludes a token. For a step to be repeatable it must be a pure function of the two.
    """

    order: ClassVar[int] = 450
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "all"

    logits_processors: tuple[Callable[..., Any], ...] = parameter(
        (),
        "functions",
        "Python functions (token_ids, logits) -> logits, called in order (not on the command line)",
    )

    def __call__(self, step: Step, logits: Float32) -> Float32:
        token_ids = step.token_ids.copy()
        token_ids.flags.writeable = False
        for i, function in enumerate(self.logits_processors):
            where = f"logits_processors[{i}] ({name_of(function)}) at position {len(token_ids)}"
            try:
                returned = function(token_ids, logits.copy())
            except Exception as error:
                raise LogitsFunctionError(f"{where} raised {type(error).__name__}: {error}") from error
            logits = _checked(where, returned, logits.shape)
        return logits


def _checked(where: str, returned: Any, shape: tuple[int, ...]) -> Float32:
    wanted = f"float32 logits of shape {shape}"
    if not isinstance(returned, np.ndarray):
        hint = "; return the logits" if returned is None else ""
        raise LogitsFunctionError(f"{where}: expected {wanted}, got {type(returned).__name__}{hint}")
    if returned.dtype != np.float32 or returned.shape != shape:
        raise LogitsFunctionError(
            f"{where}: expected {wanted}, got {returned.dtype} of shape {returned.shape}"
        )
    wrong = np.flatnonzero(~(returned < np.inf))
    if len(wrong):
        value = returned[wrong[0]]
        raise LogitsFunctionError(
            f"{where}: the logit of token {wrong[0]} is {value}, expected a finite number or -inf"
        )
    return np.ascontiguousarray(returned).copy()
