"""Options that several commands share; the sampling ones are derived from the fields of SamplingParams."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from pellucid.capacity import KV_FORMATS
from pellucid.cli import _console
from pellucid.errors import UsageError
from pellucid.front.loading import ACTIVATIONS, BACKENDS, DEFAULT_CHUNK, DEFAULT_MODEL, LoadOptions, begin
from pellucid.settings import COMMAND_LINE

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from pellucid.llm import LLM
    from pellucid.sampling.parameters import Parameter
    from pellucid.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def complete_model(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """For a shell: the catalog's names that begin so; else files."""
    from click.shell_completion import CompletionItem

    from pellucid.fetch.catalog import CATALOG

    names = [CompletionItem(name) for name in CATALOG if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


model = click.option(
    "-m",
    "--model",
    shell_complete=complete_model,
    envvar="PELLUCID_MODEL",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Path, catalog name, hf:org/repo[/file] or pypi:package==version.",
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


model_defaults = click.option(
    "--model-defaults", is_flag=True, help="Start from the sampling values that the model's author gives."
)


BF16_HELP = "What matrices in BF16 multiply: f32, or bf16 (rounded: faster with AVX512_BF16, less exact)."
_LOAD_OPTIONS = (
    model,
    click.option("--threads", type=click.IntRange(1, 1024), show_default="all CPUs", help="CPU threads."),
    click.option(
        "--context",
        type=click.IntRange(1),
        show_default="the model's",
        help="Most tokens of a sequence, prompt and answer.",
    ),
    click.option(
        "--chunk",
        type=click.IntRange(1),
        default=DEFAULT_CHUNK,
        show_default=True,
        help="Most prompt tokens of a pass.",
    ),
    click.option(
        "--kv-format",
        type=click.Choice(["auto", *KV_FORMATS]),
        metavar="FORMAT",
        default="auto",
        show_default=True,
        help="K and V in memory: f32, f16, bf16, q8_0 (half of f16, less exact), i16 (as f16, faster), or auto: "
        "f32 for float models, i16 for quantised ones and for bf16 activations.",
    ),
    click.option(
        "--activations", type=click.Choice(ACTIVATIONS), default="f32", show_default=True, help=BF16_HELP
    ),
    click.option(
        "--kv-memory",
        type=ByteSize(),
        show_default="a quarter of the RAM",
        help="Most memory of the KV cache, such as 2G.",
    ),
    click.option(
        "--backend",
        type=click.Choice(list(BACKENDS)),
        default="cpu",
        show_default=True,
        help="What computes: native kernels, or plain NumPy (slow, readable).",
    ),
    click.option(
        "--draft-model", help="A smaller model of the same vocabulary that guesses for --speculate."
    ),
    click.option(
        "--draft-corpus",
        type=click.IntRange(0, 1 << 26),
        default=0,
        show_default=True,
        help="Tokens of earlier outputs to keep, to guess from for --speculate.",
    ),
)
LOAD_NAMES = (
    *("model", "threads", "context", "chunk", "kv_format", "activations", "kv_memory", "backend"),
    *("draft_model", "draft_corpus"),
)


def load_options(command: F) -> F:
    """--model and how to run it, for `open_llm`."""
    for option in reversed(_LOAD_OPTIONS):
        command = option(command)
    return command


def given(names: Iterable[str]) -> dict[str, Any]:
    """Those of the running command's parameters that the caller gave, by name."""
    context = click.get_current_context()
    return {
        name: context.params[name]
        for name in names
        if context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    }


def open_llm(model: str | None = None, otherwise: Mapping[str, Any] | None = None) -> LLM:
    """Load the model as the command line says. model: in place of its. otherwise: fields of LoadOptions where it says
    nothing."""
    said = given(LOAD_NAMES)
    named = otherwise or {}
    options = LoadOptions(
        num_threads=said.get("threads"),
        context_length=said.get("context", named.get("context_length")),
        prefill_chunk=said.get("chunk"),
        kv_format=said.get("kv_format", named.get("kv_format")),
        activations=said.get("activations", named.get("activations")),
        kv_memory=said.get("kv_memory"),
        backend=said.get("backend", named.get("backend")),
        draft_model=said.get("draft_model"),
        draft_corpus=said.get("draft_corpus"),
        origin=COMMAND_LINE,
    )
    context = click.get_current_context()
    begun = begin(model or context.params["model"], options, arena=context.obj)

    from pellucid.llm import LLM  # while the weights are packed

    return LLM.from_begun(begun)


class SamplingCommand(click.Command):
    """A command with a flag for each parameter of SamplingParams, and a help page in sections.

    The flags are made when they are first needed, so that `pellucid --help` does not import the samplers. without:
    parameters that the command has flags of its own for, or that have no meaning in it.
    """

    def __init__(self, *args: Any, without: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.without = without

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not any(isinstance(param, SamplingOption) for param in self.params):
            from pellucid.sampling.params import SamplingParams

            fields = (field for field in SamplingParams.fields() if not field.in_python_only)
            self.params.extend(SamplingOption(field) for field in fields if field.name not in self.without)
        return super().get_params(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {
            "Options": [],
            "Model and memory": [],
            "Choosing tokens": [],
        }
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):
                continue
            if isinstance(param, SamplingOption):
                sections["Choosing tokens"].append(record)
            else:
                sections["Model and memory" if param.name in LOAD_NAMES else "Options"].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


# Kinds whose values are lists, given by repeating the option: what one word of them looks like.
_LISTS = {
    "ids": "ID[,ID...]",
    "bias": "ID=NUMBER",
    "placed": "PLACE=ID",
    "strings": "TEXT",
    "names": "NAME[,NAME...]",
    "sequences": "ID,ID,...",
    "breakers": "TEXT",
    "sequence_bias": "ID,ID,...=NUMBER",
}


_SHORTER = {"speculation": "--speculate"}  # a second name of an option
_METAVARS = {"schema": "JSON|FILE", "grammar": "FILE|TEXT", "prompt": "TEXT"}


class SamplingOption(click.Option):
    """The flag of one parameter: `--top-k INT`. Lists are given by repeating it, ids also with commas."""

    def __init__(self, field: Parameter) -> None:
        self.field = field
        flag = "--" + field.name.replace("_", "-")
        text = f"{field.help[:1].upper()}{field.help[1:]}{_limits(field)}."
        if field.kind == "bool":
            super().__init__([f"{flag}/--no-{flag[2:]}"], default=field.default, help=text)
            return
        many = field.kind in _LISTS
        metavar = _LISTS.get(
            field.kind, "|".join(field.choices) or _METAVARS.get(field.kind, field.kind.upper())
        )
        # The default is shown only: what is not given stays None, and SamplingParams decides.
        shown = field.default is not None and not many
        super().__init__(
            [field.name, *([_SHORTER[field.name]] if field.name in _SHORTER else []), flag],
            type=_Word(field),
            multiple=many,
            default=field.default if shown else None,
            show_default=shown,
            metavar=metavar,
            help=text,
        )

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        value = super().process_value(ctx, value)
        if not isinstance(value, tuple) or not value:
            return value
        return _checked(self.field, value, ctx, self)


class _Word(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions of click
    """One value of a parameter; lists are checked as a whole by their option."""

    name = "value"

    def __init__(self, field: Parameter) -> None:
        self.field = field

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or self.field.kind in _LISTS:
            return value
        return _checked(self.field, (value,), ctx, param)


def _checked(
    field: Parameter, words: tuple[str, ...], ctx: click.Context | None, param: click.Parameter | None
) -> Any:
    try:
        return field.check(_convert(field, words))
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _limits(field: Parameter) -> str:
    """The range in words; a bound that only keeps numbers in their machine type is left out."""
    words = []
    if field.above is not None:
        words.append(f"above {field.above:g}")
    if field.minimum is not None and field.minimum > -(2**31):
        words.append(f"from {field.minimum:g}")
    if field.maximum is not None and field.maximum < 2**31 - 1:
        words.append(f"to {field.maximum:g}")
    return f" ({' '.join(words)})" if words else ""


def _convert(field: Parameter, words: tuple[str, ...]) -> Any:
    """Words of a command line as the type that the parameter checks; what is no such type stays as it is,
    and the check refuses it."""
    if field.kind == "strings":
        return words
    if field.kind == "breakers":
        return () if words == ("none",) else words
    if field.kind == "ids":
        return [token for word in words for token in _ids(word)]
    if field.kind in ("bias", "placed"):
        pairs = [word.partition("=") for word in words]
        kind = float if field.kind == "bias" else int
        return {token.strip(): _number(number, kind) for token, _, number in pairs}
    if field.kind == "names":
        return [part for word in words for part in word.split(",")]
    if field.kind == "sequences":
        return [_ids(word) for word in words]
    if field.kind == "sequence_bias":
        pairs = [word.rpartition("=") for word in words]
        return [[_ids(ids), _number(number, float)] for ids, _, number in pairs]
    if field.kind == "schema":
        return _schema_text(words[0])
    if field.kind == "grammar":
        return _grammar_text(words[0])
    if field.kind in ("choice", "text", "prompt"):
        return words[0]
    if field.kind == "bool":
        return {"true": True, "false": False}.get(words[0].lower(), words[0])
    return _number(words[0], int if field.kind == "int" else float)


def _schema_text(word: str) -> str:
    """JSON, from the command line or a file. UsageError: it is none, saying where it breaks."""
    begun = word.lstrip()[:1]
    inline = begun in ("{", "[", '"', "") or word in ("true", "false")
    text = word if inline else _file_text(word, "JSON that begins with '{', or a file")
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        where = "" if inline else f"{word}: "
        hint = "; in a shell put it in single quotes, its names in double quotes" if inline else ""
        raise UsageError(f"expected a JSON Schema, but {where}{error}{hint}") from None
    return text


def _grammar_text(word: str) -> str:
    """Of a file; what looks like a grammar itself is taken as one."""
    if re.search(r"::=|^\s*\w+\s*:", word) and not os.path.exists(word):
        return word
    return _file_text(word, "a file with a grammar, or a grammar (root ::= ... or start: ...)")


def _file_text(path: str, wanted: str = "a file") -> str:
    """UsageError: it cannot be read as text."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UsageError(f"expected {wanted}, got {path!r:.60}: {why}") from None


def _ids(word: str) -> list[Any]:
    return [_number(part, int) for part in re.split(r"[,\s]+", word) if part]


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def note_idle(settings: Settings) -> None:
    """Say on stderr which options were given and do nothing."""
    reasons: dict[str, list[str]] = {}
    for name, why in settings.without_effect().items():
        reasons.setdefault(why, []).append("--" + name.replace("_", "-"))
    for why, idle in reasons.items():
        verb = "has" if len(idle) == 1 else "have"
        advice = " (give --temperature)" if why.startswith("temperature") else ""
        _console.note(f"pellucid: note: {', '.join(idle)} {verb} no effect: {why}{advice}")
    if settings["n"].value > 1 and settings["temperature"].value == 0:
        _console.note("pellucid: note: all samples are the same: temperature is 0 (give --temperature)")


def sampling_values() -> dict[str, Any]:
    """The sampling parameters that the caller gave, by name."""
    from pellucid.sampling.params import SamplingParams

    return given(field.name for field in SamplingParams.fields() if not field.in_python_only)


def parse_value(name: str, text: str) -> Any:
    """The value of one sampling parameter from its text. UsageError: no such parameter or value."""
    from pellucid.sampling.params import SamplingParams

    for field in SamplingParams.fields():
        if field.name == name:
            return (
                None if field.optional and text.lower() == "none" else field.check(_convert(field, (text,)))
            )
    names = ", ".join(field.name for field in SamplingParams.fields())
    raise UsageError(f"no sampling parameter '{name}'; there are: {names}")
