"""What looks expensive is compiled first in a process of its own, which may fail, hang or crash there.

llguidance's limits bound what it counts; they do not bound, for instance, intersections of regular expressions, large
multipleOf, and recursion along chains of thousands of rules, which ends the process. Ordinary constraints are known by
their looks and are compiled at once: a process costs about 0.1 s, once for each constraint that needs it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from pellucid.constraints.base import Source
from pellucid.constraints.regex import REPEAT
from pellucid.errors import ConstraintError

CPU_SECONDS = 1
WALL_SECONDS = 60.0  # for what hangs: CPU time is what ends the rest, however busy the machine is
MEMORY = 256 * 1024 * 1024
PLAIN_BYTES = 32 * 1024
PLAIN_REGEX_BYTES = 512
PLAIN_RULES = 200

_PATTERNS = re.compile(r'"(?:pattern|patternProperties)"\s*:\s*(\{|"(?:[^"\\]|\\.)*")')
_MULTIPLES = re.compile(r'"multipleOf"\s*:\s*([^\s,}]+)')


def is_plain(source: Source) -> bool:
    """Whether its looks bound what compiling it takes."""
    text = source.text
    if len(text) > PLAIN_BYTES:
        return False
    if source.kind == "choices":
        return True
    if _repeats(text) > 1_000:
        return False
    if source.kind == "regex":
        return len(text) <= PLAIN_REGEX_BYTES
    if source.kind == "grammar":
        return text.count("\n") <= PLAIN_RULES and not any(sign in text for sign in ("&", "~", "%json", "{"))
    patterns = _PATTERNS.findall(text)
    if any(not re.fullmatch(r"\d{1,3}(\.\d{1,2})?|0?\.\d{1,4}", found) for found in _MULTIPLES.findall(text)):
        return False
    if '"allOf"' in text and len(patterns) > 1:
        return False
    return sum(map(len, patterns)) <= 2 * PLAIN_REGEX_BYTES and text.count('"$ref"') <= 500


def _repeats(text: str) -> int:
    """The product of all counts of repetition: at least that of those which stand in each other."""
    product = 1
    for found in REPEAT.finditer(text):
        product *= max([int(number[:6]) for number in found.groups() if number] or [1]) or 1
    return product


def check(source: Source, grammar: str) -> None:
    """ConstraintError: compiling this grammar of llguidance took too much, or ended the process that did."""
    order = json.dumps({"grammar": grammar, "cpu": CPU_SECONDS, "memory": MEMORY}).encode()
    probe = Path(__file__).with_name("probe.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(probe)],
            input=order,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=WALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise _too_much(source) from None
    except OSError as error:
        raise ConstraintError(
            f"{source.kind}: no process could be started to compile it safely: {error}"
        ) from None
    if done.returncode != 0:
        raise _too_much(source)


def _too_much(source: Source) -> ConstraintError:
    return ConstraintError(
        f"{source.kind}: compiling it takes more than {CPU_SECONDS} s, {MEMORY >> 20} MiB or too deep a recursion; "
        "make it smaller"
    )
