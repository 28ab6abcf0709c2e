"""`_native.pyi`, which mypy reads, names what the compiled module has: no more, no less. `just stub` rewrites it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

from pellucid import _native

STUB = Path(__file__).parents[3] / "src" / "pellucid" / "_native.pyi"


def stub_names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(prefix + node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(prefix + node.target.id)
        if isinstance(node, ast.ClassDef):
            names |= stub_names(node.body, f"{prefix}{node.name}.")
    return names


def module_names(thing: Any, prefix: str = "") -> set[str]:
    names: set[str] = set()
    for name, value in vars(thing).items():
        if name.startswith("_"):
            continue
        names.add(prefix + name)
        if inspect.isclass(value):
            names |= module_names(value, f"{prefix}{name}.")
    return names


def test_stub_is_up_to_date() -> None:
    stub = {name for name in stub_names(ast.parse(STUB.read_text()).body) if "._" not in f".{name}"}
    assert stub == module_names(_native), "run `just stub` after a change of native/bind/"
