"""Chat templates of real models, where this machine has them: none are part of the project.

PELLUCID_TEMPLATES names a folder of .jinja files; otherwise the sources of llama.cpp under PELLUCID_PEERS
(bench/README.md) have some.
"""

from __future__ import annotations

import os
from pathlib import Path


def _folder() -> Path | None:
    named = os.environ.get("PELLUCID_TEMPLATES")
    if named:
        return Path(named)
    peers = Path(os.environ.get("PELLUCID_PEERS", Path.home() / ".cache" / "pellucid-peers"))
    found = sorted(peers.glob("llama_cpp_python-*/vendor/llama.cpp/models/templates"))
    return found[-1] if found else None


FOLDER = _folder()
TEMPLATES = sorted(FOLDER.glob("*.jinja")) if FOLDER is not None and FOLDER.is_dir() else []
WHY_ABSENT = "no chat templates of real models here (PELLUCID_TEMPLATES: a folder of .jinja files)"


def template(name: str) -> str:
    """The text of the template whose file name begins with `name`; skips the test where it is absent."""
    import pytest

    found = [path for path in TEMPLATES if path.name.startswith(name)]
    if not found:
        pytest.skip(f"{WHY_ABSENT}: {name}")
    return found[0].read_text(encoding="utf-8")
