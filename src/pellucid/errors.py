"""The errors that a user can meet. Each says what was expected, what came, and what to do, in one line."""

from __future__ import annotations

from pathlib import Path


class PellucidError(Exception):
    """Base of every error that pellucid raises on purpose. `exit_code` is what the command line returns."""

    exit_code = 1

    def __str__(self) -> str:
        """One line: a line break can only come from a name or a value that is quoted in it."""
        return super().__str__().replace("\r", "\\r").replace("\n", "\\n")


class UsageError(PellucidError, ValueError):
    """A parameter or argument is out of its range, unknown, or contradicts another."""

    exit_code = 2


class ConstraintError(UsageError):
    """A constraint on the output (json_schema, regex, grammar, choices) is malformed, impossible, too large or uses
    what cannot be followed; or tokens that were given do not satisfy it."""


class ModelFileError(PellucidError):
    """A model file is truncated, malformed, hostile or of an unsupported kind.

    The message names the file, the field and, where there is one, the byte offset.
    """

    exit_code = 2

    def __init__(self, path: Path | str, field: str, problem: str, *, offset: int | None = None) -> None:
        where = f" at byte {offset}" if offset is not None else ""
        super().__init__(f"{path}: {field}{where}: {problem}")
        self.path = str(path)
        self.field = field
        self.offset = offset


class UnsupportedModelError(ModelFileError):
    """The file is sound, but holds an architecture, format or feature that pellucid does not run."""


class ModelNotFoundError(PellucidError):
    """No model answers to this name or path; the message lists where was looked."""

    exit_code = 2


class DownloadError(PellucidError):
    """A model could not be fetched, or what came did not match its pinned hash."""


class ContextOverflowError(PellucidError, ValueError):
    """The prompt, or prompt plus requested tokens, is longer than the context; the message says by how much."""

    exit_code = 2


class QueueFullError(PellucidError):
    """More requests than may run and wait; the message says how many places are taken, of how many."""


class TemplateError(PellucidError, ValueError):
    """A chat template is missing, broken, or refused the messages."""

    exit_code = 2


class ChatFileError(PellucidError, ValueError):
    """A saved conversation cannot be read or written, is damaged, or is of another model."""

    exit_code = 2


class SessionFileError(PellucidError, ValueError):
    """A saved session cannot be read or written, is damaged, or is of another model, tokenizer or KV format."""

    exit_code = 2


class RunFileError(PellucidError, ValueError):
    """A run file cannot be read or written, is damaged, or is of another model than the one at hand."""

    exit_code = 2
