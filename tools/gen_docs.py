#!/usr/bin/env python3
"""Write the pages and tables of docs/ that are made from the code; --check: only say which differ.

    python tools/gen_docs.py            rewrite what differs
    python tools/gen_docs.py --check    exit status 1 and the names of the pages that differ

docs/cli.md is made whole from the click commands. In other pages the text between
`<!-- generated: NAME -->` and `<!-- end -->` is made by the function of that name below.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(<!-- generated: ([a-z_]+) -->\n).*?(<!-- end -->)", re.S)


def cell(text: object) -> str:
    """Text for one cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(header: list[str], rows: list[list[object]]) -> str:
    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


# --- docs/cli.md ------------------------------------------------------------------------------------


def paragraphs(text: str) -> Iterator[str]:
    """A command's help as Markdown: paragraphs joined, blocks marked with \\b verbatim."""
    for part in inspect.cleandoc(text).split("\n\n"):
        if part.startswith("\b"):
            yield "```text\n" + part.removeprefix("\b").strip("\n") + "\n```"
        elif part.strip():
            yield " ".join(part.split())


def default_of(option: click.Option) -> str:
    """The default that --help shows; "" where it shows none."""
    value = option.default
    if not option.show_default or value is None or callable(value) or type(value).__name__ == "Sentinel":
        return str(option.show_default) if isinstance(option.show_default, str) else ""
    if isinstance(option.show_default, str):
        return option.show_default
    return f"`{value}`"


def kind_of(option: click.Option) -> str:
    """What the option takes: nothing for a flag, else its metavar as --help writes it."""
    if option.is_flag or option.count or option.secondary_opts:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in option.type.choices)
    if isinstance(option.type, click.IntRange | click.FloatRange):
        word = "integer" if isinstance(option.type, click.IntRange) else "number"
        low, high = option.type.min, option.type.max
        if low is None and high is None:
            return word
        return f"{word}, {'' if low is None else f'{low} '}to {'any' if high is None else high}"
    return option.type.name


def document(name: str, command: click.Command) -> Iterator[str]:
    """One command: what it does, its arguments and options, its examples."""
    context = click.Context(command, info_name=f"pellucid {name}")
    yield f"## pellucid {name}"
    yield "```text\n" + command.get_usage(context).removeprefix("Usage: ") + "\n```"
    yield from paragraphs(command.help or "")
    rows: list[list[object]] = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
            # Where the default is derived, commands say it in words at the end of the help.
            help, _, said = (parameter.help or "").partition("[default: ")
            rows.append([names, kind_of(parameter), help, said.removesuffix("]") or default_of(parameter)])
    if rows:
        yield table(["option", "takes", "", "default"], rows).rstrip("\n")
    yield from paragraphs(command.epilog or "")


def cli_page() -> str:
    from pellucid.cli.main import main

    context = click.Context(main, info_name="pellucid")
    commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    parts = [
        "# The command line",
        "<!-- Made by tools/gen_docs.py from src/pellucid/cli/: change that, then run `just docs`. -->",
        *paragraphs(main.help or ""),
        table(
            ["command", ""],
            [
                [f"[`{name}`](#pellucid-{name})", command.get_short_help_str(200)]
                for name, command in commands.items()
                if command is not None
            ],
        ).rstrip("\n"),
        *paragraphs(main.epilog or ""),
    ]
    for name, command in commands.items():
        if command is not None:
            parts += document(name, command)
    return "\n\n".join(parts) + "\n"


# --- blocks inside pages ------------------------------------------------------------------------------


def catalog() -> str:
    """The models that pellucid knows by name."""
    from pellucid.fetch.catalog import CATALOG, DEFAULT_MODEL

    rows: list[list[object]] = []
    for name, recipe in CATALOG.items():
        size = f"{recipe.size / 1e6:.0f} MB" if recipe.size else "unknown"
        title = f"`{name}`" + (" (the default)" if name == DEFAULT_MODEL else "")
        rows.append([title, recipe.summary, size, recipe.licence or "", f"`{(recipe.sha256 or '')[:16]}`"])
    return table(["name", "", "size", "licence", "sha256 begins"], rows)


def architectures() -> str:
    """The registered architectures and the file of each."""
    from pellucid.models.base import models

    rows: list[list[object]] = []
    for name in models:
        module = inspect.getmodule(models[name])
        purpose = (inspect.getdoc(module) or "").split("\n")[0]
        rows.append([f"`{name}`", f"`{(module.__name__ if module else '?').rpartition('.')[2]}.py`", purpose])
    return table(["architecture", "file", ""], rows)


def formats() -> str:
    """The weight formats."""
    from pellucid.weights.tensor import Format

    return table(
        ["format", "values in a block", "bytes of a block", "bits a value"],
        [
            [f"`{f.label}`", f.block_size, f.block_bytes, f"{f.block_bytes * 8 / f.block_size:g}"]
            for f in Format
        ],
    )


def sampling() -> str:
    """Every field of SamplingParams, in the order in which they act."""
    from pellucid.sampling.params import SamplingParams

    rows: list[list[object]] = []
    for field in SamplingParams.fields():
        kind = field.kind + (" or None" if field.optional else "")
        stage = f"`{field.processor}`" if field.processor else ""
        rows.append([f"`{field.name}`", stage, kind, f"`{field.default!r}`", field.range, field.help])
    return table(["parameter", "stage", "kind", "default", "range", ""], rows)


def orders() -> str:
    """The stages in the order of each preset."""
    from pellucid.sampling.order import PRESETS, stages_of

    rows: list[list[object]] = []
    for name, preset in PRESETS.items():
        rules = ", ".join(f"{key}={value!r}" for key, value in preset.rules.items())
        rows.append([f"`{name}`", " ".join(stages_of((name,))), f"`{rules}`" if rules else ""])
    return table(["order", "stages", "rules"], rows)


def step_keys() -> str:
    """The keys of the terminal debugger."""
    from pellucid.tui.keys import DIGITS_HELP, KEYS

    rows: list[list[object]] = [[f"`{key.shown}`", key.help] for key in KEYS if key.shown]
    return table(["key", ""], [*rows, ["`1` to `9`", DIGITS_HELP]])


BLOCKS: dict[str, Callable[[], str]] = {
    function.__name__: function for function in (catalog, architectures, formats, sampling, orders, step_keys)
}


# --- writing and checking -----------------------------------------------------------------------------


def pages() -> Iterator[tuple[Path, str]]:
    """(page, what it should hold) of every page that is made, whole or in part, from the code."""
    yield DOCS / "cli.md", cli_page()
    for page in sorted(DOCS.glob("**/*.md")):
        text = page.read_text(encoding="utf-8")
        if page.name != "cli.md" and BLOCK.search(text):
            yield page, BLOCK.sub(lambda found: found[1] + BLOCKS[found[2]]() + found[3], text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a page differs")
    check = parser.parse_args().check
    stale = [
        (page, text)
        for page, text in pages()
        if not page.exists() or page.read_text(encoding="utf-8") != text
    ]
    for page, text in stale:
        if not check:
            page.write_text(text, encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: {'differs from the code; run `just docs`' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
