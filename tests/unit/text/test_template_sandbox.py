"""Templates from strangers: they compute on messages, in bounded time and space, and reach nothing else."""

from __future__ import annotations

from time import thread_time

import pytest

from pellucid.errors import TemplateError
from pellucid.text.template import ChatTemplate

MESSAGES = {"messages": [{"role": "user", "content": "Hi"}]}

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__()[0]('x') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ strftime_now.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{{ (messages|attr('__class__'))|attr('__base__') }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{{ namespace.__init__.__globals__ }}",
]
BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 999999999999 }}",
    "{{ [0] * 999999999 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ 'x'.ljust(999999999) }}",
    "{{ 'x'|center(999999999) }}",
    "{{ 'x'|indent(999999999) }}",
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set s = 'xxxxxxxx' * 1000000 %}{{ [s, s, s, s, s, s, s, s, s, s, s]|join }}",
    "{% set s = 'xxxxxxxx' * 1000000 %}{{ s.replace('x', s) }}",
    "{% set s = 'xxxxxxxx' * 1000000 %}{{ s.join([s, s, s, s, s, s, s, s, s, s]) }}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% for a in range(99999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
    "{{ range(10 ** 12)|list }}",
    "{{ [1, 2]|batch(999999999, 0)|list }}",
    "{{ '%999999999d'|format(1) }}",
    "{{ '%*d'|format(999999999, 1) }}",
    "{{ '{:{w}}'.format(1, w=999999999) }}",
    "{% set s='x'*30000 %}{{ (s|replace('x', s))|length }}",
    "{% set ns=namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + ['x' * (8000000 + i)] %}{% endfor %}",
    "{% set ns=namespace(l=[0]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "{% macro f(n) %}{% for i in range(9) %}{{ f(n) }}{% endfor %}{% endmacro %}{{ f(0) }}",
    "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ ([[0]*9999]*9999)|sum(start=[])|length }}",
    "{{ {'a': ['x'*1000000]*1000}|tojson|length }}",
    "{{ (['x'*1000000]*1000)|string|length }}",
    "{{ ['x'*1000000]*1000 }}",
    "{{ ('x\\n'*1000000)|indent(9999)|length }}",
    "{{ ('a'*1000000).translate({97: 'b'*1000})|length }}",
    "{{ range(100000)|map('string')|map('center', 9999)|join|length }}",
    "{% set ns=namespace(t='x'*1000000) %}{% for i in range(100000) %}{% set ns.t = ns.t|upper|lower %}{% endfor %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_is_reached(source: str) -> None:
    try:
        text = ChatTemplate(source).render(MESSAGES, {})
    except TemplateError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 500
    else:  # an undefined value, printed as nothing
        assert text == ""
    assert MESSAGES == {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("source", BOMBS)
def test_every_bomb_ends(source: str) -> None:
    start = thread_time()  # the budget's own clock
    with pytest.raises(TemplateError):
        ChatTemplate(source).render(MESSAGES, {}, seconds=1.0)
    assert thread_time() - start < 30  # one long operation may come on top of the budget of one second


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}", "Hi\n"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi"}]'),
        ("{{ {'a': 'é'} | tojson(indent=2) }}", '{\n  "a": "é"\n}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}{{ messages[0]['content'] }}{% endgeneration %}", "Hi"),
        ("{% for i in [1, 2, 3] %}{{ loop.index }}/{{ loop.length }}{% if not loop.last %},{% endif %}{% endfor %}",
         "1/3,2/3,3/3"),
        ("{% for i in messages | map(attribute='role') %}{{ loop.length }}{{ i }}{% endfor %}", "1user"),
        ("{{ ['a', 'b'] | join(', ') }} {{ ', '.join(['a', 'b'] | map('upper')) }}", "a, b A, B"),
        ("{{ 'a' ~ 1 ~ none }} {{ '%s-%s' % ('x', 'y') }} {{ 'ab' * 2 }} {{ 7 % 4 }}", "a1None x-y abab 3"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "role=user;content=Hi;"),
        ("{% for m in messages[1:] %}x{% else %}none{% endfor %}", "none"),
        ("{% for m in messages if m.role != 'user' recursive %}x{% endfor %}{{ ' x '.strip() }}", "x"),
        ("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f('a') }}{{ strftime_now('%%') }}", "[a]%"),
        ("{{ 'a-b'.replace('-', '+') }}{{ 'x' | indent(2, true) }}{{ undefined_name }}", "a+b  x"),
    ],
)  # fmt: skip
def test_what_templates_need(source: str, text: str) -> None:
    assert ChatTemplate(source).render(MESSAGES, {}) == text


def test_the_template_says_no() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must\nalternate') }}").render(MESSAGES, {})


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{", "{% for %}", "{% nothing %}", "(" * 10 + "{{ " + "(" * 9999]
)
def test_broken_templates(source: str) -> None:
    with pytest.raises(TemplateError):
        ChatTemplate(source).render(MESSAGES, {})


def test_marks_replace_only_literals() -> None:
    template = ChatTemplate("<s>{{ '<s>' ~ messages[0].content }}")
    text = template.render({"messages": [{"role": "user", "content": "<s>"}]}, {"<s>": "\U00100000"})
    assert text == "\U00100000\U00100000<s>"
