"""What may not stand in the package at all: code that runs data, and templates outside the sandbox."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "pellucid"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Modules that turn bytes into running code or open a shell, and calls that do the same.
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load"}
SANDBOX = "ImmutableSandboxedEnvironment"


def dotted(node: ast.expr) -> str:
    """ "a.b.c" of a chain of names; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]}
        elif isinstance(node, ast.Call):
            called = dotted(node.func)
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            shell = keywords.get("shell")
            if called in BANNED_CALLS:
                yield node.lineno, f"{called}()"
            if "allow_pickle" in keywords and not is_constant(keywords["allow_pickle"], False):
                yield node.lineno, "allow_pickle"
            if "trust_remote_code" in keywords:
                yield node.lineno, "trust_remote_code"
            if shell is not None and not is_constant(shell, False):
                yield node.lineno, "shell="
            continue
        elif isinstance(node, ast.Assert):
            # Gone under `python -O`: a check that matters is an `if` and a `raise`. `assert x is not None`,
            # which only tells mypy what the lines above it guarantee, may stay.
            if not is_narrowing(node.test):
                yield node.lineno, "assert"
            continue
        else:
            continue
        for name in sorted(names & BANNED_MODULES):
            yield node.lineno, f"import {name}"


def is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def is_narrowing(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.ops[0], ast.IsNot)
        and is_constant(test.comparators[0], None)
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_data(path: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}" for line, what in offences(ast.parse(path.read_text()))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "eval('1')",
        "exec(code)",
        "torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "subprocess.run(c, shell=True)",
        "AutoModel.from_pretrained(p, trust_remote_code=False)",
        "def f():\n    import marshal",
        "assert size < limit",
        "os.system(c)",
    ],
)
def test_the_reader_sees_it(line: str) -> None:
    assert list(offences(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["model.eval()", "re.compile(p)", "np.load(f, allow_pickle=False)", "assert x is not None"]
)
def test_the_reader_lets_pass(line: str) -> None:
    assert not list(offences(ast.parse(line)))


def template_environments(tree: ast.AST) -> Iterator[str]:
    """The jinja2 things that can render: imports of them, calls and subclasses of an `...Environment`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jinja2":
            yield from (a.name for a in node.names if a.name.endswith(("Environment", "Template")))
        elif isinstance(node, ast.Call):
            name = dotted(node.func).rpartition(".")[2]
            if name.endswith(("Environment", "Template", "NativeEnvironment")):
                yield name
        elif isinstance(node, ast.ClassDef):
            bases = (dotted(base).rpartition(".")[2] for base in node.bases)
            yield from (base for base in bases if base.endswith("Environment"))


def test_templates_are_rendered_in_one_place_and_in_the_sandbox() -> None:
    users = {
        p: set(template_environments(ast.parse(p.read_text()))) for p in SOURCES if "jinja2" in p.read_text()
    }
    users = {p: names for p, names in users.items() if names}
    if not users:
        pytest.skip("no file renders templates yet")
    assert len(users) == 1, f"jinja2 environments in {sorted(str(p.relative_to(ROOT)) for p in users)}"
    (names,) = users.values()
    own_classes = {
        n.name for p in users for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.ClassDef)
    }
    assert SANDBOX in names
    assert names <= {SANDBOX} | own_classes
