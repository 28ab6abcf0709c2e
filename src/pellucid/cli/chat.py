"""`pellucid chat`: a conversation, turn by turn."""

from __future__ import annotations

from typing import Any

import click

from pellucid.cli import _console, _lines, _options
from pellucid.cli._conversation import Conversation, Leave
from pellucid.errors import PellucidError


@click.command(
    cls=_options.SamplingCommand,
    epilog="""\b
Examples:
  pellucid chat
  pellucid chat --system "You answer in one sentence." --temperature 0.7
  printf 'Hi\\nAnd in French?\\n' | pellucid chat      one turn a line; answers on stdout
""",
)
@_options.load_options
@click.option("--system", help="System message.")
@click.option("--stats", is_flag=True, help="Counts and tokens per second after each answer, on stderr.")
@click.option(
    "--show-settings", is_flag=True, help="Every effective setting and its origin at the start, on stderr."
)
@_options.model_defaults
def command(**options: Any) -> None:
    """Talk with a model, turn by turn.

    The model needs a chat template. /help tells the commands inside. Lines may be piped in: then the first that
    fails ends the chat, with its error.
    """
    sampling = _options.sampling_values()
    with _options.open_llm() as llm:
        chat = Conversation(llm, options["system"], sampling, options["model_defaults"], options["stats"])
        if options["show_settings"]:
            click.echo(chat.settings_table(), err=True)
        else:
            _options.note_idle(llm.effective_settings(model_defaults=options["model_defaults"], **sampling))
        reader = _lines.LineReader(_lines.history_file())
        if reader.interactive:
            _console.note(f"{llm!r}\nCtrl-C stops an answer, Ctrl-D leaves, /help tells more.")
        try:
            _loop(chat, reader)
        finally:
            reader.close()


def _loop(chat: Conversation, reader: _lines.LineReader) -> None:
    while True:
        try:
            line = reader.read("> ")
        except KeyboardInterrupt:
            if not reader.interactive:
                raise
            click.echo("\n(Ctrl-D leaves)", err=True)
            continue
        if line is None:
            return
        try:
            chat.turn(line)
        except Leave:
            return
        except (PellucidError, KeyboardInterrupt) as error:
            if not reader.interactive:
                raise
            click.echo(
                f"pellucid: error: {error}" if isinstance(error, PellucidError) else "(stopped)", err=True
            )
