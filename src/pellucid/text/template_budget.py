"""What one rendering of a chat template may take: steps, processor time, text. Everything that a template does pays."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from time import thread_time
from typing import Any

from pellucid.errors import TemplateError

MAX_TEXT = 1 << 24  # characters of any string while it runs
MAX_STEPS = 5_000_000  # turns of loops, calls, operations
MAX_TOTAL = 1 << 28  # characters of all strings that it makes, one after the other
MAX_SECONDS = 2.0  # of this thread's processor time, so that a busy machine does not break a sound template


class Budget:
    """What is left to one rendering."""

    def __init__(self, seconds: float = MAX_SECONDS) -> None:
        self.steps = 0
        self.seconds = seconds
        self.deadline = thread_time() + seconds
        self.total = 0
        self._next_look = 0  # the clock is looked at every 64 steps

    def step(self, steps: int = 1) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise TemplateError(f"the chat template took more than {MAX_STEPS} steps; use another template")
        if self.steps < self._next_look:
            return
        self._next_look = self.steps + 64
        if thread_time() > self.deadline:
            raise TemplateError(f"the chat template took more than {self.seconds:g} s; use another template")

    def size(self, characters: int) -> None:
        if characters > MAX_TEXT:
            raise TemplateError(f"the chat template made a text of more than {MAX_TEXT} characters")
        self.total += characters
        if self.total > MAX_TOTAL:
            raise TemplateError(f"the chat template made more than {MAX_TOTAL} characters in all its texts")


current_budget: ContextVar[Budget] = ContextVar("budget")


def length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def pay_as_text(value: Any) -> Any:
    """The same value; what it takes as text is paid for, before anybody makes that text."""
    budget, left = current_budget.get(), [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            budget.step(len(item))
            left += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            budget.step(len(item))
            left += item
        elif not isinstance(item, int) or item.bit_length() > 64:
            budget.size(length(item))
    return value


def finalize(value: Any) -> Any:
    """What is printed, before it becomes text."""
    return value if isinstance(value, str) else pay_as_text(value)


class PaidLoop:
    """What a `for` runs over; every turn is paid for."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        budget = current_budget.get()
        for item in self._items:
            budget.step()
            yield item

    def __len__(self) -> int:
        return len(self._items)
