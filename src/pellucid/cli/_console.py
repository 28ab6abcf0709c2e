"""Terminal or pipe: colour, width, and text of a model that must not steer the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, Any

import click

# C0 and C1 controls but tab and newline: shown as control pictures, so that a model cannot move the cursor,
# write to the clipboard or retitle the window.
_CONTROLS = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}
_CONTROLS |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
# What turns the direction of writing (Unicode's property Bidi_Control), so that a line does not seem to say something
# else ("Trojan Source", Boucher and Anderson 2021). `glass.words.quoted` and `tui.style.visible` let none of all these
# through, either, and nothing else that is not printable.
_CONTROLS |= dict.fromkeys((0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)


def is_terminal(stream: IO[Any] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def use_color(stream: IO[Any]) -> bool:
    """Colour only on a terminal that has it, and not where NO_COLOR is set (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, stream: IO[Any], **style: Any) -> str:
    """`text` in click's style where the stream shows colour, plain elsewhere."""
    return click.style(text, **style) if use_color(stream) else text


def columns(default: int = 80) -> int:
    """Of the terminal: COLUMNS, or what the system says, as shutil.get_terminal_size has it. shutil itself loads three
    compressors, 3 ms of every start."""
    with contextlib.suppress(KeyError, ValueError):
        if (said := int(os.environ["COLUMNS"])) > 0:
            return said
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or default  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # none, closed, no terminal
        return default


def width(default: int = 80) -> int:
    return max(20, columns(default))


def harmless(text: str) -> str:
    """Control characters, and marks that turn the direction of writing, made visible; tabs and newlines stay."""
    return text.translate(_CONTROLS)


def harmless_json(text: str) -> str:
    """The same for JSON, where an escape says the same: no value changes."""
    return text.translate({code: f"\\u{code:04x}" for code in _CONTROLS})


def visible(text: str) -> str:
    """A token's text on one line: also newlines and tabs made visible."""
    return harmless(text).replace("\n", "␊").replace("\t", "␉")


def write(text: str, **style: Any) -> None:
    """Data to stdout at once; made harmless, and styled, where stdout is a terminal."""
    shown = harmless(text) if is_terminal(sys.stdout) else text
    sys.stdout.write(styled(shown, sys.stdout, **style) if style else shown)
    sys.stdout.flush()


def note(text: str) -> None:
    """A message to stderr."""
    click.echo(styled(harmless(text), sys.stderr, dim=True), err=True)


def check_utf8(text: str, name: str) -> str:
    """The text, if its bytes were UTF-8 (Python keeps others as lone surrogates). UsageError: they were not."""
    from pellucid.errors import UsageError

    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: not UTF-8 text at character {error.start}") from None
    return text


def read_text(file: str | None, argument: str | None) -> str | None:
    """The prompt: the argument; "-" or nothing with piped stdin: stdin; or the file. None: there is none.

    UTF-8 is required (UsageError says where it is not); nothing is stripped.
    """
    from pellucid.errors import UsageError

    if file is not None and argument is not None:
        raise UsageError("give the text as an argument or with --file, not both")
    if file is not None and file != "-":
        try:
            with open(file, "rb") as stream:
                data, name = stream.read(), file
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror or error}") from None
    elif argument is not None and argument != "-":
        return check_utf8(argument, "the argument")
    elif sys.stdin is None:  # started without one
        return None
    elif argument == "-" or file == "-" or not is_terminal(sys.stdin):
        data, name = sys.stdin.buffer.read(), "stdin"
    else:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 text at byte {error.start}: {error.reason}") from None
