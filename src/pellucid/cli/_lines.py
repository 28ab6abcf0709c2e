"""Lines that a person types: editing and history on a terminal, plain lines from a pipe."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

from pellucid.cli import _console

HISTORY_LENGTH = 1000
FENCE = '"""'  # around a message of several lines


class LineReader:
    """Reads lines until end of input (None). On a terminal: readline, with history kept between sessions."""

    def __init__(self, history: Path) -> None:
        self._history = history
        self._readline: ModuleType | None = None
        self.interactive = _console.is_terminal(sys.stdin)
        if self.interactive and _console.is_terminal(sys.stdout):
            self._start_readline()

    def read(self, prompt: str) -> str | None:
        """One line without its newline; None at the end of input (Ctrl-D). A line that ends in a backslash
        goes on with the next; lines between \"\"\" and \"\"\" are one. KeyboardInterrupt passes through."""
        parts: list[str] = []
        while True:
            line = self._one(prompt if not parts else "... ")
            if line is None:
                return "\n".join(parts) if parts else None
            if not parts and line.lstrip().startswith(FENCE):
                return self._block(line.lstrip().removeprefix(FENCE))
            if not line.endswith("\\"):
                return "\n".join([*parts, line])
            parts.append(line[:-1])

    def _block(self, line: str | None) -> str:
        """The lines up to the closing mark, or to the end of input."""
        lines: list[str] = []
        while line is not None:
            if line.rstrip().endswith(FENCE):
                lines.append(line.rstrip().removesuffix(FENCE))
                break
            lines.append(line)
            line = self._one("... ")
        return "\n".join(lines).strip("\n")

    def _one(self, prompt: str) -> str | None:
        if self._readline is not None:
            try:
                return input(prompt)
            except EOFError:
                sys.stdout.write("\n")
                return None
        if self.interactive:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        line = sys.stdin.readline()
        return line.removesuffix("\n").removesuffix("\r") if line else None

    def _start_readline(self) -> None:
        try:
            import readline
        except ImportError:  # a Python without it: lines still work
            return
        self._readline = readline
        readline.set_history_length(HISTORY_LENGTH)
        if "libedit" not in (readline.__doc__ or "") and os.environ.get("TERM") not in (None, "", "dumb"):
            readline.parse_and_bind("set enable-bracketed-paste on")  # what is pasted is one message
        if self._history.is_file():
            try:
                readline.read_history_file(self._history)
            except OSError as error:
                _console.note(f"history not read: {self._history}: {error.strerror or error}")

    def close(self) -> None:
        """Keep the history, readable by its owner only."""
        if self._readline is None:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._history, os.O_CREAT | os.O_WRONLY, 0o600))
            self._history.chmod(0o600)
            self._readline.write_history_file(self._history)
        except OSError as error:
            _console.note(f"history not kept: {self._history}: {error.strerror or error}")


def history_file() -> Path:
    """$XDG_STATE_HOME/pellucid/chat_history (~/.local/state where that is not set)."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "pellucid" / "chat_history"
