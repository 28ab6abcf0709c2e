"""JSON out of model files: bounded, strict UTF-8, no key twice; and a cursor for texts of known grammar."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pellucid.errors import ModelFileError
from pellucid.weights.mapped import quoted, read_small_file

DECODER = json.JSONDecoder()
SPACE = re.compile(r"[ \t\n\r]*")
UNSIGNED = re.compile(r"(?:0|[1-9][0-9]{0,19})(?![0-9.eE])")


def load_object(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object that a file of at most `limit` bytes holds; ModelFileError for anything else."""
    content = read_small_file(path, limit)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileError(path, "JSON", "expected UTF-8 text", offset=error.start) from None

    def constant(name: str) -> Any:
        raise ModelFileError(path, "JSON", f"{name} is no JSON value")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    raise ModelFileError(path, f"JSON key {quoted(name)}", "is there twice")
                seen.add(name)
        return members

    try:
        value = json.loads(text, parse_constant=constant, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode())
        raise ModelFileError(path, "JSON", error.msg, offset=at) from None
    except RecursionError:
        raise ModelFileError(path, "JSON", "is nested too deep") from None
    except ValueError as error:  # a number of thousands of digits
        raise ModelFileError(path, "JSON", str(error).partition(";")[0]) from None
    if not isinstance(value, dict):
        raise ModelFileError(path, "JSON", f"expected an object, found {type(value).__name__}")
    return value


class JSONCursor:
    """Reads a JSON text whose grammar the caller knows: nothing is built but what the caller asked for.

    text: decoded UTF-8. `base`: the byte of the file where it begins (for messages).
    """

    def __init__(self, path: Path, text: str, base: int) -> None:
        self.path = path
        self.text = text
        self.base = base
        self.at = 0

    def error(self, field: str, problem: str) -> ModelFileError:
        offset = self.base + len(self.text[: self.at].encode())
        return ModelFileError(self.path, field, problem, offset=offset)

    def _skip_space(self) -> None:
        match = SPACE.match(self.text, self.at)
        assert match is not None  # the pattern matches the empty string too
        self.at = match.end()

    def accept(self, mark: str) -> bool:
        """Whether the next character but space is `mark`; if so, it is read."""
        self._skip_space()
        if not self.text.startswith(mark, self.at):
            return False
        self.at += 1
        return True

    def expect(self, mark: str, field: str) -> None:
        if not self.accept(mark):
            found = ascii(self.text[self.at]) if self.at < len(self.text) else "the end"
            raise self.error(field, f"expected '{mark}', found {found}")

    def string(self, field: str) -> str:
        self.expect('"', field)
        try:
            text, end = DECODER.raw_decode(self.text, self.at - 1)
            text.encode("utf-8")  # an escaped half of a surrogate pair is no text
        except json.JSONDecodeError as error:
            self.at = error.pos
            raise self.error(field, error.msg) from None
        except UnicodeEncodeError:
            raise self.error(field, "holds half of a surrogate pair") from None
        self.at = end
        return str(text)

    def unsigned(self, field: str) -> int:
        """An integer of 64 bits, without sign, fraction or exponent."""
        self._skip_space()
        match = UNSIGNED.match(self.text, self.at)
        if match is None or int(match.group()) >= 1 << 64:
            raise self.error(field, "expected an integer from 0 to 2^64 - 1")
        self.at = match.end()
        return int(match.group())

    def unsigned_list(self, field: str, limit: int) -> list[int]:
        """At most `limit` of them."""
        self.expect("[", field)
        numbers: list[int] = []
        if self.accept("]"):
            return numbers
        while True:
            if len(numbers) == limit:
                raise self.error(field, f"expected at most {limit} numbers")
            numbers.append(self.unsigned(field))
            if self.accept("]"):
                return numbers
            self.expect(",", field)

    def finish(self, field: str) -> None:
        self._skip_space()
        if self.at != len(self.text):
            raise self.error(field, f"expected the end, found {self.text[self.at]!a}")
