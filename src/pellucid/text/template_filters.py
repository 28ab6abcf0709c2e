"""The filters and functions of chat templates that can make much of little, each bounded before it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.runtime import Context

from pellucid.errors import TemplateError
from pellucid.text.template_budget import MAX_TEXT, PaidLoop, current_budget, finalize, length, pay_as_text

current_time: ContextVar[datetime | None] = ContextVar("current_time", default=None)  # None: the clock's


def _sum(value: Any, attribute: Any = None, start: Any = 0) -> Any:
    items = list(PaidLoop(value))
    if attribute is not None or not isinstance(start, int | float):
        raise TemplateError("the chat template adds up what are no numbers")
    return sum(items, start)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text, size = str(value), len(width) if isinstance(width, str) else int(width)
    current_budget.get().size(len(text) + (text.count("\n") + 1) * max(size, 0))
    return str(jinja2.filters.do_indent(text, width, first, blank))


@jinja2.pass_context  # such a filter is never run by the compiler
def _loop(context: Context, items: Any) -> PaidLoop:
    return PaidLoop(iter(items) if not hasattr(items, "__len__") else items)


@jinja2.pass_context
def _concat(context: Context, items: tuple[Any, ...]) -> str:
    texts = [str(finalize(item)) for item in items]
    current_budget.get().size(sum(map(len, texts)))
    return "".join(texts)


@jinja2.pass_environment
def _join(environment: jinja2.Environment, value: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = map(jinja2.filters.make_attrgetter(environment, attribute), value)
    texts = [str(item) for item in PaidLoop(value)]
    current_budget.get().size(sum(map(len, texts)) + len(str(d)) * len(texts))
    return str(d).join(texts)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
            sort_keys: bool = False) -> str:  # fmt: skip
    if isinstance(indent, int) and indent > 64:
        raise TemplateError(f"the chat template asked for an indent of {indent}")
    if isinstance(value, Iterator):  # what `map` and `select` give
        value = list(PaidLoop(value))
    pay_as_text(value)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def check_percent(form: str, items: Iterable[Any]) -> None:
    """How much `form % items` can make, before it runs."""
    if re.search(r"\d{5}|\*", form):
        current_budget.get().size(MAX_TEXT + 1)
    current_budget.get().size(len(form) + sum(length(item) for item in items) * form.count("%"))


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    check_percent(str(value), [*args, *kwargs.values()])
    return str(value) % (kwargs or args)


def _replace(value: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(value), str(old), str(new)
    times = text.count(old) if count is None else min(text.count(old), count)
    current_budget.get().size(len(text) + times * len(new))
    return text.replace(old, new, -1 if count is None else count)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(f"the chat template refused the messages: {' '.join(str(message).split())[:300]}")


def _sized(function: Any) -> Any:
    """A filter that makes about as much as it is given: that is paid for."""

    def paid(*args: Any, **kwargs: Any) -> Any:
        for value in args:
            pay_as_text(value)
        value = function(*args, **kwargs)
        current_budget.get().size(length(value))
        current_budget.get().step()
        return value

    for mark in ("jinja_pass_arg",):
        if hasattr(function, mark):
            setattr(paid, mark, getattr(function, mark))
    return paid


def _small_numbers(function: Any) -> Any:
    def bounded(*args: Any, **kwargs: Any) -> Any:
        for value in [*args[1:], *kwargs.values()]:
            if isinstance(value, int) and abs(value) > 10_000:
                current_budget.get().size(MAX_TEXT + 1)
        made = function(*args, **kwargs)
        current_budget.get().size(length(made))
        return made

    for mark in ("jinja_pass_arg",):  # how jinja2 remembers that a filter wants its environment
        if hasattr(function, mark):
            setattr(bounded, mark, getattr(function, mark))
    return bounded


_SIZED = (
    "upper",
    "lower",
    "title",
    "capitalize",
    "string",
    "list",
    "escape",
    "e",
    "forceescape",
    "urlencode",
)
_NUMBERED = ("center", "batch", "slice")
# No template needs these, and each is one more thing to bound.
_UNWANTED = ("wordwrap", "filesizeformat", "urlize", "xmlattr", "pprint")


def install(environment: jinja2.Environment) -> None:
    """Put them in place of Jinja's own."""
    filters: dict[str, Any] = environment.filters
    filters.update(tojson=_tojson, join=_join, pellucid_loop=_loop, pellucid_concat=_concat)
    filters.update(format=_format, replace=_replace, sum=_sum, indent=_indent)
    filters.update({name: _sized(filters[name]) for name in _SIZED})
    filters.update({name: _small_numbers(filters[name]) for name in _NUMBERED})
    for name in _UNWANTED:
        del filters[name]
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: (current_time.get() or datetime.now()).strftime(form)
