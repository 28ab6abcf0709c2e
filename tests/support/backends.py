"""The backends that this machine has: the reference always, native code where it is built."""

from __future__ import annotations

import importlib.util
from typing import Any

NAMES = ["reference", "cpu"]


def backend(name: str) -> Any:
    """An Ops, or a skip with its reason."""
    import pytest

    if name == "reference":
        from pellucid.ops.reference import ReferenceOps

        return ReferenceOps()
    if importlib.util.find_spec("pellucid.ops.cpu") is None:
        pytest.skip("pellucid.ops.cpu is not here")
    from pellucid.ops.cpu import CpuOps

    return CpuOps()


def replaying(model: Any, ops: Any) -> Any:
    """The model as the front door runs it on native code: small passes recorded once and replayed."""
    from pellucid.ops.replay import Replay

    return Replay(model, ops)
