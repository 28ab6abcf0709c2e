"""Tells lm-evaluation-harness that a model type `pellucid` exists; imports neither NumPy nor the engine.

Versions of lm_eval after 0.4.13 find it by the entry point `lm_eval.models` in pyproject.toml. For those up to 0.4.13,
which know only their own list, `lm_eval_pellucid.pth` imports this module where the program that starts is lm_eval.
"""

from __future__ import annotations

NAME = "pellucid"
TARGET = "pellucid.evaluation.harness:PellucidLM"


def register() -> None:
    """Enters the name, to be imported when it is asked for; again does nothing. ImportError: lm_eval is not there."""
    import lm_eval.models  # enters its own names  # noqa: F401
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


def register_if_there() -> None:
    """As `register`; nothing happens where lm_eval is not installed, or too old to have a registry of this kind."""
    try:
        register()
    except ImportError:
        return
