"""Small rules that a reader relies on: no file without a purpose line, none too long, no name twice."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "pellucid"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400  # "about 300": past this a file has two nouns


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_says_what_it_is_and_fits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path}: the first line of a file says what it is for"
    assert text.count("\n") <= MAX_LINES, f"{path}: {text.count(chr(10))} lines; split it"


def test_native_files_fit() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in sorted((ROOT / "native").rglob("*"))
        if path.suffix in {".cc", ".h"}
        and (count := path.read_text(encoding="utf-8").count("\n")) > MAX_LINES
    }
    assert not long


def test_test_files_have_unique_names() -> None:
    """Without __init__.py files pytest imports test files by their base names."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_silent_conversion_of_values_in_the_build() -> None:
    """The numeric contract: no option that lets a compiler change a result."""
    build = (ROOT / "CMakeLists.txt").read_text()
    assert "-ffp-contract=off" in build
    for option in ("-ffast-math", "-Ofast", "-funsafe-math", "-fassociative-math", "-march=native"):
        assert option not in build, option


def test_readme_begins_with_two_commands() -> None:
    """`.ci/run` runs the first fenced block of the README; these are its lines."""
    block = re.search(r"^```[a-z]*\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    assert block is not None
    assert block.group(1).splitlines() == [
        'pip install . && pellucid generate "The best way to learn a new skill is"',
        "pip install -e '.[test]' && pytest",
    ]


def test_links_of_the_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "bench").glob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not target.startswith(("http://", "https://", "mailto:")) and not (page.parent / target).exists()
    ]
    assert not broken
