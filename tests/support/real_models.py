"""The real models that some tests need: from $PELLUCID_TEST_MODELS/NAME.gguf, else fetched as the catalog says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pellucid.errors import PellucidError
from pellucid.weights.locate import locate

CATALOG_NAMES = {"smollm2": "smollm2-135m-instruct", "gemma3": "gemma-3-270m"}


def real_model(name: str) -> Path:
    """The file of "smollm2" or "gemma3"; skips the test, saying why, where it cannot be had."""
    folder = os.environ.get("PELLUCID_TEST_MODELS")
    if folder and (Path(folder) / f"{name}.gguf").is_file():
        return Path(folder) / f"{name}.gguf"
    try:
        return locate(CATALOG_NAMES[name])
    except PellucidError as error:
        pytest.skip(f"{CATALOG_NAMES[name]} cannot be had: {error}")
