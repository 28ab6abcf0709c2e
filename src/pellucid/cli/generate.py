"""`pellucid generate`: continue a text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pellucid.cli import _console, _json, _options, _prompt
from pellucid.settings import option_of

if TYPE_CHECKING:
    from pellucid.front.recorder import Recorder
    from pellucid.llm import LLM
    from pellucid.outputs import Chunk, GenerationResult
    from pellucid.serving.stream import Stream


@click.command(
    cls=_options.SamplingCommand,
    epilog="""\b
Examples:
  pellucid generate "The best way to learn a new skill is" --max-tokens 40
  pellucid generate --chat "Name three colours." --temperature 0.7 --seed 1
  git diff | pellucid generate --chat --system "Write a commit message." -
  pellucid generate -f prompt.txt --json | jq -r .outputs[0].text
  pellucid generate "The capital of France is" --max-tokens 5 --logprobs 3
  pellucid generate "Once upon a time" --temperature 1 --record run.pellucid

Only the continuation goes to stdout, with a newline after it where it ends without one (--json keeps the
exact text; the logarithm of 0 is null there). Without --temperature the most probable token is always chosen.
Exit code 130: stopped by Ctrl-C.
""",
)
@click.argument("prompt", required=False)
@_options.load_options
@_prompt.file_option
@_prompt.chat_option
@_prompt.system_option
@_prompt.special_option
@click.option(
    "--beams",
    type=click.IntRange(1),
    metavar="N",
    help="The best output of a beam search with N beams (see `pellucid search --strategy beam`).",
)
@click.option("--echo", is_flag=True, help="Print the prompt before its continuation (not with --json).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: text, ids, timings, settings.")
@click.option("--stats", is_flag=True, help="Counts and tokens per second, on stderr.")
@click.option("--show-settings", is_flag=True, help="Every effective setting and its origin, on stderr.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write what is needed to replay the run into this file, as it goes.",
)
@click.option(
    "--interventions",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Change what flows through the model as this JSON file says (docs/interventions.md).",
)
@click.option(
    "--record-layers",
    is_flag=True,
    help="With --record: also a digest of each layer's output (8 bytes), so that a replay can name a layer.",
)
@_options.model_defaults
def command(prompt: str | None, **options: Any) -> None:
    """Continue a text.

    The text is PROMPT, or --file, or what is piped in; "-" is stdin.
    """
    text = _console.read_text(options["file"], prompt)
    if text == "" and options["show_settings"] and prompt is None and options["file"] is None:
        text = None  # nothing was piped in, as where stdin is /dev/null: the settings alone were asked for
    if text is None and not options["show_settings"]:
        raise click.UsageError(_prompt.NONE)
    _prompt.check_chat(options)
    if options["echo"] and options["as_json"]:
        raise click.UsageError(
            "--echo does not go with --json, whose object holds the prompt; leave --echo out"
        )
    if options["record"] == "-":
        raise click.UsageError("--record: expected the name of a file, got - (the text goes to stdout)")
    sampling = _options.sampling_values()
    if options["beams"] is not None:
        _check_beams(options, sampling)
    with _options.open_llm() as llm:
        if text is None:  # --show-settings alone
            click.echo(llm.effective_settings(model_defaults=options["model_defaults"], **sampling).table())
            return
        if options["beams"] is not None:
            _beams(llm, text, options, sampling)
            return
        stream = _start(llm, text, options, sampling)
        if options["show_settings"]:
            click.echo(stream.settings.table(), err=True)
        else:
            _options.note_idle(stream.settings)
        with stream:
            _print(stream, text, options)
        for line in stream.result.notes:
            _console.note(line)
        if options["stats"]:
            _console.note(stream.result.summary())


_NOT_OF_BEAMS = (
    "parse_special",
    "show_settings",
    "record",
    "record_layers",
    "interventions",
    "model_defaults",
)


def _check_beams(options: dict[str, Any], sampling: dict[str, Any]) -> None:
    """click.UsageError: what --beams does not go with."""
    for name in (*_NOT_OF_BEAMS, "n", "logprobs", "stop"):
        if name in sampling or (name in _NOT_OF_BEAMS and options[name]):
            raise click.UsageError(f"{option_of(name)} does not go with --beams; leave one of them out")
    if "max_tokens" not in sampling:
        raise click.UsageError("--beams needs --max-tokens: a beam search has to know where outputs are cut")


def _beams(llm: LLM, text: str, options: dict[str, Any], sampling: dict[str, Any]) -> None:
    """The best output of a beam search."""
    prompt = llm.render_chat(_prompt.messages(text, options["system"])) if options["chat"] else text
    result = llm.beam_search(prompt, num_beams=options["beams"], **sampling)
    if options["as_json"]:
        _json.write(result.to_dict())
    else:
        if options["echo"]:
            _console.write(text, dim=True)
        _console.write(result.text + ("" if result.text.endswith("\n") else "\n"))
    if options["stats"]:
        from pellucid.cli._strategies import work_of

        _console.note(work_of(result))


def _recorder(options: dict[str, Any]) -> Recorder | None:
    if options["record"] is None:
        if options["record_layers"]:
            raise click.UsageError("--record-layers is part of a record; add --record FILE")
        return None
    from pellucid.front.recorder import Recorder

    return Recorder(options["record"], layers=options["record_layers"])


def _start(llm: LLM, text: str, options: dict[str, Any], sampling: dict[str, Any]) -> Stream:
    common = {"model_defaults": options["model_defaults"], "record": _recorder(options), **sampling}
    if options["interventions"] is not None:
        from pellucid.glass.intervention_file import load_interventions

        common["interventions"] = load_interventions(options["interventions"])
    if not options["chat"]:
        return llm.stream(text, parse_special=options["parse_special"], **common)
    return llm.stream_chat(_prompt.messages(text, options["system"]), **common)


def _print(stream: Stream, prompt: str, options: dict[str, Any]) -> None:
    if options["as_json"]:
        for _ in stream:
            pass
        _json.write(stream.result.to_dict())
        return
    if options["echo"]:
        _console.write(prompt, dim=True)
    if options["logprobs"] is not None:
        for chunk in stream:
            _print_token(chunk)
    elif options["n"] == 1:
        _print_text(stream)
    else:
        for _ in stream:
            pass
        _print_samples(stream.result)


def _print_text(stream: Stream) -> None:
    last = "\n"
    for chunk in stream:
        if chunk.text:
            _console.write(chunk.text)
            last = chunk.text[-1]
    if last != "\n":
        _console.write("\n")


def _print_samples(result: GenerationResult) -> None:
    for sample in result.outputs:
        click.echo(
            _console.styled(f"--- sample {sample.index}: {sample.finish_reason}", sys.stdout, bold=True)
        )
        _console.write(sample.text if sample.text.endswith("\n") else sample.text + "\n")


def _print_token(chunk: Chunk) -> None:
    """One line for a token: position, id, log-probability, piece; then the alternatives."""
    if chunk.token_id is None or chunk.logprobs is None:
        return
    token = chunk.logprobs
    line = f"{chunk.position:>6} {chunk.token_id:>7} {token.logprob:>9.4f}  {_console.visible(token.text)!r}"
    others = "  ".join(f"{a.logprob:.4f} {_console.visible(a.text)!r}" for a in token.top)
    click.echo(line + (_console.styled(f"   | {others}", sys.stdout, dim=True) if others else ""))
