"""A chat template: Jinja from a model file, run in a sandbox with a budget of time and size.

Control tokens that the template itself writes are marked: each one in its literal text is replaced by a private-use
character before it runs, so that afterwards they can be told from text that merely spells them. Knows no tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pellucid.errors import TemplateError
from pellucid.text.template_budget import (
    MAX_SECONDS,
    MAX_TEXT,
    Budget,
    PaidLoop,
    current_budget,
    finalize,
    length,
)
from pellucid.text.template_filters import check_percent, current_time, install

MAX_SOURCE = 1 << 20  # characters of a template


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}: marks for training; here only what is inside of them."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = current_budget.get()
        budget.step()
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str | bytes | int):
            name = getattr(called, "__name__", "")
            if name == "join" and len(args) == 1:
                args = (list(PaidLoop(args[0])),)
            self._check_method(budget, owner, name, args, kwargs)
            if name == "translate":
                budget.size(
                    length(owner)
                    * max([1, *(length(v) for a in args if isinstance(a, dict) for v in a.values())])
                )
        value = super().call(context, called, *args, **kwargs)
        budget.size(length(value))
        return value

    def wrap_str_format(self, value: Any) -> Any:
        """`format` and `format_map` of a text, looked at before they run."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._check_method(current_budget.get(), value.__self__, value.__name__, args, kwargs)
            return wrapped(*args, **kwargs)

        return bounded

    @staticmethod
    def _check_method(budget: Budget, owner: Any, name: str, args: Any, kwargs: Any) -> None:
        """Methods of text that can make much of little: how much, before they run."""
        given = [*args, *kwargs.values()]
        if name in ("center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes"):
            number = max([0, *(abs(value) for value in given if isinstance(value, int))])
            budget.size(number * (length(owner) if name == "expandtabs" else 1))
        elif name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(owner, str):
            budget.size(length(owner) + owner.count(args[0]) * length(args[1]))
        elif name == "join" and args:
            budget.size(sum(map(length, args[0])) + length(owner) * len(args[0]))
        elif name in ("format", "format_map", "translate"):
            many = re.search(r"\d{5}|:[^{}]*\{", str(owner)) if name != "translate" else None
            inner = sum(sum(map(length, v.values())) if isinstance(v, dict) else length(v) for v in given)
            budget.size(MAX_TEXT + 1 if many else inner * str(owner).count("{"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = current_budget.get()
        budget.step()
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(times, int) and not isinstance(text, int | float):
                    budget.size(length(text) * max(times, 0))
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            budget.size(max(left.bit_length(), 1) * max(right, 0))
        if operator == "%" and isinstance(left, str):
            check_percent(left, right if isinstance(right, tuple) else (right,))
        value = super().call_binop(context, operator, left, right)
        budget.size(length(value))
        return value


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=finalize
    )
    install(environment)
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    return environment


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
        token, clock = current_budget.set(Budget(seconds)), current_time.set(now)
        try:
            template = self._compile(tuple(sorted(marks.items(), key=lambda item: (-len(item[0]), item[0]))))
            pieces, size = [], 0
            for piece in template.generate(**variables):
                size += len(piece)
                current_budget.get().size(size)
                current_budget.get().step()
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
            current_budget.reset(token)
            current_time.reset(clock)

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
