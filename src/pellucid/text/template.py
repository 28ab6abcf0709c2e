"""A chat template: Jinja from a model file, run in a sandbox with a budget of time and size.

Control tokens that the template itself writes are marked: each one in its literal text is replaced by a private-use
character before it runs, so that afterwards they can be told from text that merely spells them. Knows no tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from time import thread_time
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pellucid.errors import TemplateError

MAX_SOURCE = 1 << 20  # characters of a template
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

    def step(self, steps: int = 1) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise TemplateError(f"the chat template took more than {MAX_STEPS} steps; use another template")
        if self.steps % 64 == 0 and thread_time() > self.deadline:
            raise TemplateError(f"the chat template took more than {self.seconds:g} s; use another template")

    def size(self, characters: int) -> None:
        if characters > MAX_TEXT:
            raise TemplateError(f"the chat template made a text of more than {MAX_TEXT} characters")
        self.total += characters
        if self.total > MAX_TOTAL:
            raise TemplateError(f"the chat template made more than {MAX_TOTAL} characters in all its texts")


_budget: ContextVar[Budget] = ContextVar("budget")
_now: ContextVar[datetime | None] = ContextVar("now", default=None)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _pay_as_text(value: Any) -> Any:
    """The same value; what it takes as text is paid for, before anybody makes that text."""
    budget, left = _budget.get(), [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            budget.step(len(item))
            left += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            budget.step(len(item))
            left += item
        elif not isinstance(item, int) or item.bit_length() > 64:
            budget.size(_length(item))
    return value


def _finalize(value: Any) -> Any:
    """What is printed, before it becomes text."""
    return value if isinstance(value, str) else _pay_as_text(value)


def _sum(value: Any, attribute: Any = None, start: Any = 0) -> Any:
    items = list(_Loop(value))
    if attribute is not None or not isinstance(start, int | float):
        raise TemplateError("the chat template adds up what are no numbers")
    return sum(items, start)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text, size = str(value), len(width) if isinstance(width, str) else int(width)
    _budget.get().size(len(text) + (text.count("\n") + 1) * max(size, 0))
    return str(jinja2.filters.do_indent(text, width, first, blank))


class _Loop:
    """What a `for` runs over; every turn is paid for."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        budget = _budget.get()
        for item in self._items:
            budget.step()
            yield item

    def __len__(self) -> int:
        return len(self._items)


@jinja2.pass_context  # such a filter is never run by the compiler
def _loop(context: Context, items: Any) -> _Loop:
    return _Loop(iter(items) if not hasattr(items, "__len__") else items)


@jinja2.pass_context
def _concat(context: Context, items: tuple[Any, ...]) -> str:
    texts = [str(_finalize(item)) for item in items]
    _budget.get().size(sum(map(len, texts)))
    return "".join(texts)


@jinja2.pass_environment
def _join(environment: jinja2.Environment, value: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = map(jinja2.filters.make_attrgetter(environment, attribute), value)
    texts = [str(item) for item in _Loop(value)]
    _budget.get().size(sum(map(len, texts)) + len(str(d)) * len(texts))
    return str(d).join(texts)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
            sort_keys: bool = False) -> str:  # fmt: skip
    if isinstance(indent, int) and indent > 64:
        raise TemplateError(f"the chat template asked for an indent of {indent}")
    if isinstance(value, Iterator):  # what `map` and `select` give
        value = list(_Loop(value))
    _pay_as_text(value)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _check_percent(form: str, items: Iterable[Any]) -> None:
    """How much `form % items` can make, before it runs."""
    if re.search(r"\d{5}|\*", form):
        _budget.get().size(MAX_TEXT + 1)
    _budget.get().size(len(form) + sum(_length(item) for item in items) * form.count("%"))


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    _check_percent(str(value), [*args, *kwargs.values()])
    return str(value) % (kwargs or args)


def _replace(value: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(value), str(old), str(new)
    times = text.count(old) if count is None else min(text.count(old), count)
    _budget.get().size(len(text) + times * len(new))
    return text.replace(old, new, -1 if count is None else count)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(f"the chat template refused the messages: {' '.join(str(message).split())[:300]}")


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}: marks for training; here only what is inside of them."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.step()
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str | bytes | int):
            name = getattr(called, "__name__", "")
            if name == "join" and len(args) == 1:
                args = (list(_Loop(args[0])),)
            self._check_method(budget, owner, name, args, kwargs)
            if name == "translate":
                budget.size(
                    _length(owner)
                    * max([1, *(_length(v) for a in args if isinstance(a, dict) for v in a.values())])
                )
        value = super().call(context, called, *args, **kwargs)
        budget.size(_length(value))
        return value

    def wrap_str_format(self, value: Any) -> Any:
        """`format` and `format_map` of a text, looked at before they run."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._check_method(_budget.get(), value.__self__, value.__name__, args, kwargs)
            return wrapped(*args, **kwargs)

        return bounded

    @staticmethod
    def _check_method(budget: Budget, owner: Any, name: str, args: Any, kwargs: Any) -> None:
        """Methods of text that can make much of little: how much, before they run."""
        given = [*args, *kwargs.values()]
        if name in ("center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes"):
            number = max([0, *(abs(value) for value in given if isinstance(value, int))])
            budget.size(number * (_length(owner) if name == "expandtabs" else 1))
        elif name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(owner, str):
            budget.size(_length(owner) + owner.count(args[0]) * _length(args[1]))
        elif name == "join" and args:
            budget.size(sum(map(_length, args[0])) + _length(owner) * len(args[0]))
        elif name in ("format", "format_map", "translate"):
            many = re.search(r"\d{5}|:[^{}]*\{", str(owner)) if name != "translate" else None
            inner = sum(sum(map(_length, v.values())) if isinstance(v, dict) else _length(v) for v in given)
            budget.size(MAX_TEXT + 1 if many else inner * str(owner).count("{"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        budget.step()
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(times, int) and not isinstance(text, int | float):
                    budget.size(_length(text) * max(times, 0))
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            budget.size(max(left.bit_length(), 1) * max(right, 0))
        if operator == "%" and isinstance(left, str):
            _check_percent(left, right if isinstance(right, tuple) else (right,))
        value = super().call_binop(context, operator, left, right)
        budget.size(_length(value))
        return value


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=_finalize
    )
    filters: dict[str, Any] = environment.filters
    filters.update(tojson=_tojson, join=_join, pellucid_loop=_loop, pellucid_concat=_concat)
    filters.update(format=_format, replace=_replace, sum=_sum, indent=_indent)
    for name in (
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
    ):
        filters[name] = _sized(filters[name])
    for name in (
        "center",
        "wordwrap",
        "filesizeformat",
        "urlize",
        "xmlattr",
        "pprint",
        "batch",
        "slice",
    ):
        if name in ("center", "batch", "slice"):
            filters[name] = _small_numbers(filters[name])
        else:
            del filters[name]  # no template needs them, and each is one more thing to bound
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: (_now.get() or datetime.now()).strftime(form)
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    return environment


def _sized(function: Any) -> Any:
    """A filter that makes about as much as it is given: that is paid for."""

    def paid(*args: Any, **kwargs: Any) -> Any:
        for value in args:
            _pay_as_text(value)
        value = function(*args, **kwargs)
        _budget.get().size(_length(value))
        _budget.get().step()
        return value

    for mark in ("jinja_pass_arg",):
        if hasattr(function, mark):
            setattr(paid, mark, getattr(function, mark))
    return paid


def _small_numbers(function: Any) -> Any:
    def bounded(*args: Any, **kwargs: Any) -> Any:
        for value in [*args[1:], *kwargs.values()]:
            if isinstance(value, int) and abs(value) > 10_000:
                _budget.get().size(MAX_TEXT + 1)
        made = function(*args, **kwargs)
        _budget.get().size(_length(made))
        return made

    for mark in ("jinja_pass_arg",):  # how jinja2 remembers that a filter wants its environment
        if hasattr(function, mark):
            setattr(bounded, mark, getattr(function, mark))
    return bounded


class ChatTemplate:
    """A compiled template. `literals`: all literal text in it; `marks`: control token -> private-use character."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(
                f"the chat template has {len(source)} characters; at most {MAX_SOURCE} are allowed"
            )
        self._environment = _environment()
        self._source = source
        self._compiled: dict[tuple[tuple[str, str], ...], jinja2.Template] = {}
        self.literals = "\0".join(literal for _, _, literal in self._literals(self._parse()))

    def _parse(self) -> nodes.Template:
        try:
            return self._environment.parse(self._source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template is broken at line {error.lineno}: {error.message}"
            ) from None
        except RecursionError:
            raise TemplateError("the chat template is nested too deep") from None

    @staticmethod
    def _literals(tree: nodes.Template) -> Iterator[tuple[Any, str, str]]:
        for node in tree.find_all((nodes.TemplateData, nodes.Const)):
            field = "data" if isinstance(node, nodes.TemplateData) else "value"
            value = getattr(node, field)
            if isinstance(value, str):
                yield node, field, value

    def render(
        self,
        variables: Mapping[str, Any],
        marks: Mapping[str, str],
        seconds: float = MAX_SECONDS,
        now: datetime | None = None,
    ) -> str:
        """The text, with every control token of the template's own literals as its mark. TemplateError.

        now: what the template's clock shows; default: the time.
        """
        token, clock = _budget.set(Budget(seconds)), _now.set(now)
        try:
            template = self._compile(tuple(sorted(marks.items(), key=lambda item: (-len(item[0]), item[0]))))
            pieces, size = [], 0
            for piece in template.generate(**variables):
                size += len(piece)
                _budget.get().size(size)
                _budget.get().step()
                pieces.append(piece)
            return "".join(pieces)
        except TemplateError:
            raise
        except SecurityError as error:
            raise TemplateError(f"the chat template did what templates may not do: {_line(error)}") from None
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template failed: {_line(error)}") from None
        except Exception as error:
            raise TemplateError(f"the chat template failed: {type(error).__name__}: {_line(error)}") from None
        finally:
            _budget.reset(token)
            _now.reset(clock)

    def _compile(self, marks: tuple[tuple[str, str], ...]) -> jinja2.Template:
        if marks not in self._compiled:
            tree = self._parse()
            for node, field, value in list(self._literals(tree)):
                for piece, mark in marks:
                    value = value.replace(piece, mark)
                setattr(node, field, value)
            for loop in list(tree.find_all(nodes.For)):
                loop.iter = nodes.Filter(loop.iter, "pellucid_loop", [], [], None, None, lineno=loop.lineno)
            self._bound_concatenation(tree)
            tree.set_environment(self._environment)
            code = self._environment.compile(tree, filename="<chat template>")
            self._compiled = {
                marks: jinja2.Template.from_code(self._environment, code, self._environment.globals)
            }
        return self._compiled[marks]

    def _bound_concatenation(self, node: nodes.Node) -> None:
        """`a ~ b` becomes a filter that looks at the size first."""
        for name, value in list(node.iter_fields()):
            if isinstance(value, nodes.Node):
                self._bound_concatenation(value)
                setattr(node, name, self._bounded(value))
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, nodes.Node):
                        self._bound_concatenation(item)
                value[:] = [self._bounded(item) for item in value]

    @staticmethod
    def _bounded(node: Any) -> Any:
        if not isinstance(node, nodes.Concat):
            return node
        items = nodes.Tuple(node.nodes, "load", lineno=node.lineno)
        return nodes.Filter(items, "pellucid_concat", [], [], None, None, lineno=node.lineno)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
