"""adaptive_p: tokens near a target probability, corrected by what was chosen (llama.cpp, "adaptive-p")."""

from __future__ import annotations

from typing import ClassVar

from pellucid import _native
from pellucid.sampling.base import Scope, State, Step, parameter, samplers, stage
from pellucid.types import Float32


@samplers.register("adaptive_p")
@stage
class AdaptiveP:
    """New logits 5 - 10 d^2 / (1 + d), d = |p - aim| / 0.3. The aim is 2 * target minus the moving average of the
    probabilities (before this stage) of the tokens chosen so far, held in 0 to 1."""

    order: ClassVar[int] = 910
    keeps_argmax: ClassVar[bool] = False
    scope: ClassVar[Scope] = "all"

    adaptive_target: float | None = parameter(
        None,
        "float",
        "choose tokens whose probability is near this; None: off",
        minimum=0.0,
        maximum=1.0,
        optional=True,
    )
    adaptive_decay: float = parameter(
        0.9,
        "float",
        "how slowly the average of past probabilities forgets: about 1 / (1 - decay) tokens",
        minimum=0.0,
        maximum=0.99,
        modifies=("adaptive_target",),
    )

    def initial(self) -> State:
        total = 1.0 / (1.0 - self.adaptive_decay)
        return ((self.adaptive_target or 0.0) * total, total)

    def after(self, state: State, before: Float32, after: Float32, token_id: int) -> State:
        distance = float(before[token_id]) - _native.log_normalizer(before)
        probability = _native.exp(min(0.0, distance)) if distance > -690.0 else 0.0
        return (probability + self.adaptive_decay * state[0], 1.0 + self.adaptive_decay * state[1])

    def __call__(self, step: Step, logits: Float32) -> Float32:
        if self.adaptive_target is None:
            return logits
        weighted, total = step.states["adaptive_p"]
        aim = min(1.0, max(0.0, 2.0 * self.adaptive_target - weighted / total))
        _native.aim_at_probability(logits, aim)
        return logits
