"""The pages made from the code are up to date, and everything that a family registers has a line in docs/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def pages() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("**/*.md")))


def test_every_architecture_is_documented() -> None:
    from pellucid.models.base import models

    assert list(models)
    for name in models:
        assert f"`{name}`" in pages(), f"architecture '{name}' has no line in docs/"


def test_every_sampling_parameter_is_documented() -> None:
    params = pytest.importorskip("pellucid.sampling.params", reason="no SamplingParams yet")
    for field in params.SamplingParams.fields():
        assert f"`{field.name}`" in pages(), f"parameter '{field.name}' has no line in docs/"


def test_every_command_and_option_is_documented() -> None:
    import click

    from pellucid.cli.main import main

    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert f"## pellucid {name}\n" in page
        assert command.help, f"pellucid {name}: no help"
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"pellucid {name} {parameter.opts[0]}: no help"
                assert f"`{parameter.opts[0]}`" in page


def test_every_setting_of_the_environment_is_documented() -> None:
    import re

    used = set()
    for path in (ROOT / "src" / "pellucid").rglob("*.py"):
        used |= set(re.findall(r"\"(PELLUCID_[A-Z_]+)\"", path.read_text(encoding="utf-8")))
    assert used
    missing = {name for name in used if f"`{name}`" not in (DOCS / "settings.md").read_text(encoding="utf-8")}
    assert not missing
