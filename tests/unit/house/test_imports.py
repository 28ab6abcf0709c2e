"""The import rule, read from the source: downward only, and nothing heavy on `import pellucid`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "pellucid"

# family: the families that it may import. A family is a folder or a file of the package; `ops.base` and the
# like name one file of a folder whose other files are held to another rule. "native" is pellucid._native.
PLAIN = {"types", "arrays", "errors", "registry"}
# Plain data and checks of the front door: what a caller gives, what a caller gets, where a setting came from.
VALUES = {
    "outputs",
    "settings",
    "paths",
    "prompts",
    "serving.interrupts",
    "capacity",
    "resolve",
    "serving.turn",
    "limits",
    "overflow",
}
# The front door itself: it ties engine, text, weights, models and ops together.
FRONT = VALUES | {"llm", "info", "fingerprint", "front", "serving", "held", "chat", "search", "scoring"}
# Its files that may do more than their folders.
FRONT |= {"front.loading", "front.open_model", "front.recorder", "front.hindsight", "front.reporting"}
INSIDE = {
    "constraints",
    "engine",
    "sampling",
    "decoding",
    "text",
    "weights",
    "weights.locate",
    "models",
    "models.base",
    "ops",
    "ops.base",
    "glass",
}
# Of the glass box: what makes a run again needs a model that is open.
GLASS_FRONT = {"glass.rows", "glass.choices", "glass.replay", "glass.what_if"}
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "arrays": {"types"},
    "errors": set(),
    "registry": {"errors"},
    "weights": PLAIN | {"native"},
    "weights.locate": PLAIN | {"fetch"},
    "fetch": PLAIN,
    "text": PLAIN | {"weights", "native"},
    "ops.base": PLAIN | {"weights"},
    "ops.reference": PLAIN | {"weights", "ops.base"},
    "ops": PLAIN | {"weights", "ops.base", "native", "models.base"},  # the protocol of what a program replays
    "models.base": PLAIN | {"weights", "ops.base"},
    "models": PLAIN | {"weights", "ops.base", "models.base"},
    "sampling": PLAIN | {"native"},
    "constraints": PLAIN | {"text"},
    "decoding": PLAIN | {"sampling"},
    "engine": PLAIN | {"decoding", "sampling", "models.base", "ops.base"},
    "glass.explain": PLAIN | FRONT | {"glass", "sampling"},  # it drives a generation, to tell how it goes
    "glass": PLAIN
    | VALUES
    | {"report.notebook", "sampling", "native", "weights", "ops.base", "ops.reference", "models.base"},
    **{
        name: PLAIN | VALUES | {"sampling", "weights", "text", "models.base", "report.notebook"}
        for name in VALUES
    },
    # fetch: for the type of the progress that a caller hands to `locate`.
    **dict.fromkeys(FRONT - VALUES, PLAIN | FRONT | INSIDE | {"fetch", "report.notebook"}),
    # native: `Arena`, memory for the weights that is asked for before NumPy is imported, and its way to the backend.
    **dict.fromkeys(
        ("front.loading", "llm", "front.open_model"), PLAIN | FRONT | INSIDE | {"fetch", "native"}
    ),
    "front.recorder": PLAIN | FRONT | INSIDE | {"__init__"},  # the version, for the file's header
    # `report.html` and `report.notebook` know nothing of ours, so whoever has a display may use them.
    "report": PLAIN | FRONT | GLASS_FRONT | {"glass", "sampling", "text"},
    "front.reporting": PLAIN | FRONT | GLASS_FRONT | {"glass", "sampling", "report"},
    "report.html": set(),
    "report.notebook": {"report.html"},
    **dict.fromkeys(GLASS_FRONT, PLAIN | FRONT | INSIDE | GLASS_FRONT),
    "front.hindsight": PLAIN | FRONT | INSIDE | GLASS_FRONT,
    # The benchmark harness's adapter; its entry (plugin) imports nothing of ours.
    "evaluation": PLAIN | FRONT | {"text"},
    "cli._start": {"cli", "fetch", "native"},
    "__init__": PLAIN | FRONT | {"text", "sampling", "weights.locate", "glass"},
    "__main__": {"cli", "cli._start"},
    "tui": PLAIN | FRONT | {"glass", "sampling"},
    "cli": PLAIN
    | FRONT
    | GLASS_FRONT
    | {
        "__init__",
        "evaluation",
        "glass",
        "glass.explain",
        "report",
        "tui",
        "text",
        "weights",
        "weights.locate",
        "fetch",
        "sampling",
    },
    "server": PLAIN | FRONT | {"__init__", "glass", "sampling"},
}

# Loaded by `import pellucid`: none of these, nor any module of ours that needs them.
HEAVY = {
    "numpy",
    "tokenizers",
    "safetensors",
    "jinja2",
    "llguidance",
    "huggingface_hub",
    "rich",
    "textual",
    "click",
    "torch",
    "transformers",
    "asyncio",
}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def family(module: str) -> str:
    """The most specific family that `module` (dotted, inside the package) belongs to."""
    parts = module.split(".")
    if parts[0] == "_native":
        return "native"
    pair = ".".join(parts[:2])
    return pair if pair in ALLOWED else parts[0]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module inside the package) of every import of ours, at any depth of the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "pellucid":
                    yield node.lineno, alias.name.partition(".")[2] or "__init__"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; the house writes them in full"
            if node.module and node.module.split(".")[0] == "pellucid":
                inside = node.module.partition(".")[2]
                for alias in node.names:
                    # `from pellucid.weights import gguf` names a module, `from pellucid.types import X` not.
                    full = f"{inside}.{alias.name}".lstrip(".")
                    if is_module(full):
                        yield node.lineno, full
                    else:
                        yield node.lineno, inside or "__init__"


def is_module(name: str) -> bool:
    target = PACKAGE.joinpath(*name.split("."))
    return name == "_native" or target.with_suffix(".py").is_file() or (target / "__init__.py").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_downward_only(path: Path) -> None:
    own = family(module_of(path).removesuffix(".__init__"))
    assert own in ALLOWED, f"'{own}' is a new family: say in {__name__}.ALLOWED what it may import"
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {own} may not import {target}, only {sorted(ALLOWED[own])}"
        for line, target in imports_of(path)
        if family(target) not in ALLOWED[own] and family(target).split(".")[0] != own.split(".")[0]
    ]
    assert not wrong, "\n".join(wrong)


def test_a_rule_for_one_file_is_not_escaped_by_its_family() -> None:
    """That a family may import itself must not let base files import their implementations."""
    for base in ("ops/base.py", "models/base.py", "ops/reference.py"):
        targets = {target for _, target in imports_of(PACKAGE / base)} if (PACKAGE / base).exists() else set()
        assert not {t for t in targets if t.startswith(("ops.cpu", "ops.torch", "_native"))}, base
    for plain in ("serving/turn.py", "serving/interrupts.py"):
        assert not {t for _, t in imports_of(PACKAGE / plain) if t.startswith("serving")}, plain


def test_the_rule_finds_a_violation(tmp_path: Path) -> None:
    """The reader of imports sees every spelling, so an empty list of violations means something."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import pellucid.engine.engine\nfrom pellucid import _native\nfrom pellucid.ops.base import Ops\n"
        "def late():\n    from pellucid.weights import tensor\n    import pellucid\n"
    )
    found = {target for _, target in imports_of(probe)}
    assert found == {"engine.engine", "_native", "ops.base", "weights.tensor", "__init__"}
    assert family("_native") == "native" and family("ops.base") == "ops.base" and family("ops.cpu") == "ops"


@pytest.mark.parametrize("entry", ["pellucid", "pellucid.errors", "pellucid.registry", "pellucid.cli.main"])
def test_import_is_light(entry: str) -> None:
    """In a new interpreter, `entry` pulls in the standard library and ours (and click, for the CLI)."""
    if not is_module(entry.removeprefix("pellucid").lstrip(".") or "__init__"):
        pytest.skip(f"{entry} is not there yet")
    code = f"import sys, {entry}; print('\\n'.join(sorted(m for m in sys.modules if '.' not in m)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    allowed = {"click"} if entry.startswith("pellucid.cli") else set()
    assert not (HEAVY - allowed) & set(loaded)
