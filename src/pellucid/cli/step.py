"""`pellucid step`: a generation under a person's hands, in a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _options, _prompt
from pellucid.settings import option_of

if TYPE_CHECKING:
    from pellucid.held.generation import Generation
    from pellucid.llm import LLM


@click.command(
    cls=_options.SamplingCommand,
    epilog="""\b
Examples:
  pellucid step "The quick brown fox"
  pellucid step --chat "Name three colours." --temperature 0.8 --seed 1
  pellucid step --load step.session

Shows the text, each token in the colour of its probability; the distribution at the cursor, and what the settings make
of it; what each layer would predict; the tree of branches. The key ? lists all keys. Needs a terminal (80 x 24 will
do, 16 colours, no mouse) and the package textual: pip install 'pellucid[tui]'. In a pipe, see pellucid explain.
""",
)
@click.argument("prompt", required=False)
@_options.load_options
@click.option("-f", "--file", type=click.Path(dir_okay=False), help="Read the prompt from a file.")
@_prompt.chat_option
@_prompt.system_option
@_prompt.special_option
@click.option("--load", type=click.Path(dir_okay=False), help="Go on with what w saved there.")
@_options.model_defaults
def command(prompt: str | None, **options: Any) -> None:
    """Step through a generation in the terminal.

    Step, run, go back; choose another token or force a text; branch off; change a setting and see its effect.
    """
    app_class = _app_class()
    if options["load"] is not None:
        _check_load(prompt, options)
    text = None if options["load"] is not None else _text(prompt, options)
    _prompt.check_chat(options)
    if not all(_console.is_terminal(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise click.UsageError(
            "step needs a terminal as stdin, stdout and stderr, for keys and screen; in a pipe, use pellucid explain"
        )
    sampling = _options.sampling_values()
    with _options.open_llm() as llm:
        from pellucid.tui.debugger import Debugger

        generation = _begin(llm, text, options, sampling)
        debugger = Debugger(llm, generation, _options.parse_value, options["load"])
        app = app_class(debugger)
        app.run(mouse=False)
        if app.error is not None:
            raise app.error


def _app_class() -> Any:
    """UsageError: textual is not installed."""
    from pellucid.errors import UsageError

    try:
        from pellucid.tui.app import StepApp
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "textual":
            raise
        raise UsageError("step needs the package textual: pip install 'pellucid[tui]'") from None
    return StepApp


def _check_load(prompt: str | None, options: dict[str, Any]) -> None:
    if prompt is not None or options["file"] is not None:
        raise click.UsageError("--load brings its own text: give it, or a prompt")
    for name in ("chat", "system", "parse_special", "model_defaults"):
        if options[name]:
            raise click.UsageError(
                f"{option_of(name)} is about a prompt, and --load brings its own text: leave it out"
            )


def _text(prompt: str | None, options: dict[str, Any]) -> str:
    """The prompt. Not from stdin, which is where the keys come from."""
    if prompt == "-" or options["file"] == "-":
        raise click.UsageError("stdin brings the keys; give the prompt as an argument or with --file")
    if prompt is None and options["file"] is None:
        raise click.UsageError("no prompt: give it as an argument or with --file, or --load a session")
    return _prompt.read_prompt(prompt, options["file"])


def _begin(llm: LLM, text: str | None, options: dict[str, Any], sampling: dict[str, Any]) -> Generation:
    if text is None:
        generation = llm.restore(options["load"])
        return generation.configure(**sampling) if sampling else generation
    given = _prompt.messages(text, options["system"]) if options["chat"] else text
    return llm.begin(
        given, model_defaults=options["model_defaults"], parse_special=options["parse_special"], **sampling
    )
