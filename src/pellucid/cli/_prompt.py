"""The prompt of a command: the options that bring it, and how they go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from pellucid.cli import _console

file_option = click.option(
    "-f", "--file", type=click.Path(dir_okay=False), help="Read the prompt from a file (- is stdin)."
)
chat_option = click.option(
    "--chat", is_flag=True, help="The prompt is a user's message: apply the model's chat template."
)
system_option = click.option("--system", help="System message for --chat.")
special_option = click.option(
    "--parse-special", is_flag=True, help='Text such as "<|im_start|>" becomes control tokens.'
)
NONE = "no prompt: give it as an argument, with --file, or on stdin"


def read_prompt(prompt: str | None, file: str | None) -> str:
    """As `_console.read_text`. click.UsageError: there is none."""
    text = _console.read_text(file, prompt)
    if text is None:
        raise click.UsageError(NONE)
    return text


def check_chat(options: Mapping[str, Any]) -> None:
    """click.UsageError: --system without --chat, --parse-special with it."""
    if options["system"] is not None and not options["chat"]:
        raise click.UsageError("--system is part of a chat; add --chat")
    if options["chat"] and options["parse_special"]:
        raise click.UsageError(
            "--parse-special does not go with --chat: a message never becomes control tokens"
        )


def messages(text: str, system: str | None = None) -> list[dict[str, str]]:
    """What --chat makes of the text."""
    said = [{"role": "user", "content": text}]
    return said if system is None else [{"role": "system", "content": system}, *said]
