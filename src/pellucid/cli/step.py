"""`pellucid step`: a generation under a person's hands, in a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _options

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
@click.option("--chat", is_flag=True, help="The prompt is a user's message: apply the model's chat template.")
@click.option("--system", help="System message for --chat.")
@click.option("--parse-special", is_flag=True, help='Text such as "<|im_start|>" becomes control tokens.')
@click.option("--load", type=click.Path(dir_okay=False), help="Go on with what w saved there.")
@click.option(
    "--model-defaults", is_flag=True, help="Start from the sampling values that the model's author gives."
)
def command(prompt: str | None, **options: Any) -> None:
    """Step through a generation in the terminal.

    Step, run, go back; choose another token or force a text; branch off; change a setting and see its effect.
    """
    app_class = _app_class()
    text = None if options["load"] is not None else _prompt(prompt, options)
    if options["load"] is not None and (prompt is not None or options["file"] is not None):
        raise click.UsageError("--load brings its own text: give it, or a prompt")
    if options["system"] is not None and not options["chat"]:
        raise click.UsageError("--system is part of a chat; add --chat")
    if options["chat"] and options["parse_special"]:
        raise click.UsageError(
            "--parse-special does not go with --chat: a message never becomes control tokens"
        )
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


def _prompt(prompt: str | None, options: dict[str, Any]) -> str:
    """Not from stdin, which is where the keys come from."""
    if prompt == "-" or options["file"] == "-":
        raise click.UsageError("stdin brings the keys; give the prompt as an argument or with --file")
    if prompt is None and options["file"] is None:
        raise click.UsageError("no prompt: give it as an argument or with --file, or --load a session")
    text = _console.read_text(options["file"], prompt)
    return "" if text is None else text


def _begin(llm: LLM, text: str | None, options: dict[str, Any], sampling: dict[str, Any]) -> Generation:
    if text is None:
        generation = llm.restore(options["load"])
        return generation.configure(**sampling) if sampling else generation
    given: Any = text
    if options["chat"]:
        given = [{"role": "user", "content": text}]
        if options["system"] is not None:
            given.insert(0, {"role": "system", "content": options["system"]})
    return llm.begin(
        given, model_defaults=options["model_defaults"], parse_special=options["parse_special"], **sampling
    )
