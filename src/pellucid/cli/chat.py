"""`pellucid chat`: a conversation, turn by turn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _lines, _options
from pellucid.errors import PellucidError, UsageError

if TYPE_CHECKING:
    from pellucid.llm import LLM

_HELP = """\
/reset            forget the conversation (the system message stays)
/system [TEXT]    show, or set, the system message; setting it forgets the conversation
/set NAME VALUE   change a sampling parameter, e.g. /set temperature 0.7; /set NAME takes it back
/settings         every effective setting and its origin
/stats            counts and speed of the last answer
/help             this
Ctrl-C stops an answer and keeps the conversation; Ctrl-D leaves. A line that ends in \\ goes on below.
A message that begins with a slash is written with two: //etc/hosts."""


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
@click.option(
    "--model-defaults", is_flag=True, help="Start from the sampling values that the model's author gives."
)
def command(**options: Any) -> None:
    """Talk with a model, turn by turn.

    The model needs a chat template. /help tells the commands inside.
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
        except (PellucidError, KeyboardInterrupt) as error:
            if not reader.interactive:
                raise
            click.echo(
                f"pellucid: error: {error}" if isinstance(error, PellucidError) else "(stopped)", err=True
            )


class Conversation:
    """The messages so far, and what to do with the next line. Knows no keyboard."""

    def __init__(
        self, llm: LLM, system: str | None, sampling: dict[str, Any], model_defaults: bool, stats: bool
    ) -> None:
        self.llm = llm
        self.system = system
        self.sampling = sampling
        self.model_defaults = model_defaults
        self.stats = stats
        self.messages: list[dict[str, str]] = []  # without the system message
        self._last_summary = "no answer yet"
        if sampling.get("n") not in (None, 1):
            raise UsageError("--n: a chat has one answer to each message; leave it out")

    def turn(self, line: str) -> None:
        """A message or a /command. PellucidError: the conversation is as it was before."""
        if not line.strip():
            return
        _console.check_utf8(line, "the message")
        if line.startswith("/") and not line.startswith("//"):
            self._command(*line[1:].strip().partition(" ")[::2])
        else:
            self._answer(line[1:] if line.startswith("//") else line)

    def _answer(self, content: str) -> None:
        turns = [*self.messages, {"role": "user", "content": content}]
        stream = self.llm.stream_chat(
            self._with_system(turns), model_defaults=self.model_defaults, **self.sampling
        )
        last = "\n"
        with stream:
            try:
                for chunk in stream:
                    if chunk.text:
                        _console.write(chunk.text)
                        last = chunk.text[-1]
            except KeyboardInterrupt:
                if not _console.is_terminal(sys.stdin):
                    raise
        if last != "\n":
            _console.write("\n")
        result = stream.result
        self.messages = [*turns, {"role": "assistant", "content": result.text}]
        self._last_summary = result.summary()
        if result.finish_reason not in ("eos", "stop"):
            why = "" if result.finish_reason == "abort" else f": {result.finish_reason}"  # abort: Ctrl-C
            _console.note(f"(stopped{why})")
        if self.stats:
            _console.note(self._last_summary)

    def _with_system(self, turns: list[dict[str, str]]) -> list[dict[str, str]]:
        return turns if self.system is None else [{"role": "system", "content": self.system}, *turns]

    def settings_table(self) -> str:
        return self.llm.effective_settings(model_defaults=self.model_defaults, **self.sampling).table()

    def _command(self, name: str, rest: str) -> None:
        rest = rest.strip()
        if name == "reset":
            self.messages = []
            _console.note("(a new conversation)")
        elif name == "system" and rest:
            self.system, self.messages = rest, []
            _console.note("(a new conversation with this system message)")
        elif name == "system":
            _console.note(self.system if self.system is not None else "(none)")
        elif name == "set":
            self._set(*rest.partition(" ")[::2])
        elif name == "settings":
            _console.note(self.settings_table())
        elif name == "stats":
            _console.note(self._last_summary)
        elif name == "help":
            _console.note(_HELP)
        else:
            raise UsageError(f"no command /{name}; /help lists them")

    def _set(self, name: str, text: str) -> None:
        """Change one parameter, if the value is one that SamplingParams takes."""
        name = name.replace("-", "_")
        changed = {key: value for key, value in self.sampling.items() if key != name}
        if text.strip():
            changed[name] = _options.parse_value(name, text.strip())
        elif name not in self.sampling:
            raise UsageError("/set NAME VALUE: give the name of a sampling parameter and its value")
        self.llm.effective_settings(model_defaults=self.model_defaults, **changed)  # checks it
        self.sampling = changed
