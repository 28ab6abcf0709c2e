"""Tool calls and reasoning out of answers: every character is kept, and no split of the text changes the outcome."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from real_templates import TEMPLATES, WHY_ABSENT, template

from pellucid.text.answers.base import format_of, formats, reasoning_of
from pellucid.text.answers.parser import MAX_SPACE, AnswerParser
from pellucid.text.answers.spans import Answer, joined
from pellucid.text.template import ChatTemplate

THINK = (("<think>", "</think>"),)
D = "<\uff5ctool\u2581%s\uff5c>"
DEEPSEEK_CALL = D % "call\u2581begin" + "%s" + D % "sep" + "%s" + D % "call\u2581end"
DEEPSEEK = D % "calls\u2581begin" + "%s" + D % "calls\u2581end"
SCHEMAS = {
    "f": {"properties": {"n": {"type": "integer"}, "s": {"type": "string"}, "l": {"type": ["array", "null"]}}}
}

# family, answer, its calls (name, arguments), its visible text, its reasoning
CASES: list[tuple[str, str, list[tuple[str, dict[str, Any]]], str, str | None]] = [
    ("hermes", 'A <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>', [("f", {"x": 1})], "A", None),
    ("hermes", '<think>\nhm\n</think>\n\n<tool_call>{"name":"f"}</tool_call>\n<tool_call>{"name":"g","arguments":'
     '"{\\"a\\": [1]}"}</tool_call>\nB', [("f", {}), ("g", {"a": [1]})], "B", "hm"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"s": "</tool_call> \\" </tool_call>"}}</tool_call>',
     [("f", {"s": '</tool_call> " </tool_call>'})], "", None),
    ("hermes", '<tool_call>{"name": "f", "arguments": {}}', [("f", {})], "", None),  # ended without the marker
    ("hermes", "<think>\n\n</think>\n\nHello ", [], "Hello ", None),
    ("hermes", "<think>a <tool_call> b</think>c", [], "c", "a <tool_call> b"),
    ("hermes", "no </think> no </tool_call>", [], "no </think> no </tool_call>", None),
    ("xml_function", "T\n<tool_call>\n<function=f>\n<parameter=n>\n5\n</parameter>\n<parameter=s>\n5\nx\n</parameter>\n"
     "<parameter=l>\n[1, null]\n</parameter>\n</function>\n</tool_call>",
     [("f", {"n": 5, "s": "5\nx", "l": [1, None]})], "T", None),
    ("xml_function", "<tool_call><function=g></function></tool_call>!", [("g", {})], "!", None),
    ("llama3", ' {"name": "f", "parameters": {"x": "y"}}', [("f", {"x": "y"})], "", None),
    ("llama3", '{"type": "function", "function": {"name": "f", "parameters": {}}}; {"name": "g"}',
     [("f", {}), ("g", {})], "", None),
    ("llama3", '{"namely": 1}', [], '{"namely": 1}', None),
    ("llama3", 'Well, {"name": "f"}', [], 'Well, {"name": "f"}', None),
    ("llama3", '<|python_tag|>brave_search.call(query="a \\"b\\"", n=-2)',
     [("brave_search", {"query": 'a "b"', "n": -2})], "", None),
    ("llama3", 'S <function=f>{"x": "</function>"}</function>', [("f", {"x": "</function>"})], "S", None),
    ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}, "id": "abcdefghi"}, {"name": "g", "arguments": {}}]',
     [("f", {"x": 1}), ("g", {})], "", None),
    ("mistral", '[THINK]t[/THINK]H[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"x": "[TOOL_CALLS]"}[TOOL_CALLS]g[ARGS]{}',
     [("f", {"x": "[TOOL_CALLS]"}), ("g", {})], "H", "t"),
    ("granite", '<|tool_call|>[{"name": "f", "arguments": {"x": 1}}]', [("f", {"x": 1})], "", None),
    ("deepseek", "A" + DEEPSEEK % (DEEPSEEK_CALL % ("function", 'f\n```json\n{"x": 1}\n```') + "\n"
     + DEEPSEEK_CALL % ("g", '{"y": 2}')), [("f", {"x": 1}), ("g", {"y": 2})], "A", None),
    ("gemma", '<|channel>thought\nhm\n<channel|>A'
     '<|tool_call>call:f{a:<|"|>x,y}<|"|>,b:[1,-2.5,true],c:{k:none}}<tool_call|>'
     '<|tool_call>call:g{}<tool_call|>', [("f", {"a": "x,y}", "b": [1, -2.5, True], "c": {"k": None}}), ("g", {})],
     "A", "hm"),
    ("plain", "<tool_call>{}</tool_call>", [], "<tool_call>{}</tool_call>", None),
]  # fmt: skip

BROKEN = [
    ("hermes", "<tool_call>no</tool_call>"),
    ("hermes", 'x <tool_call>{"name": 5}</tool_call> y'),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "argum'),
    ("hermes", "<tool_call>" + "[" * 100_000 + "</tool_call>"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"x": "\\</tool_call>'),
    ("xml_function", "<tool_call><function=f><parameter=x>1</function></tool_call>"),
    ("llama3", '{"name": "f", "parameters": 5}'),
    ("llama3", "<|python_tag|>import os; os.system('x')"),
    ("llama3", "<|python_tag|>f.call(__import__('os'))"),
    ("llama3", "<|python_tag|>f.call(x={1, 2})"),
    ("llama3", "<|python_tag|>f.call(x='\\d', **{})"),
    ("llama3", "<|python_tag|>" + "f." * 50_000 + "call()"),
    ("mistral", "[TOOL_CALLS]f{}"),
    ("mistral", "[TOOL_CALLS][TOOL_CALLS]"),
    ("granite", "<|tool_call|>"),
    ("deepseek", DEEPSEEK % "x"),
    ("gemma", "<|tool_call>call:f{a:" + "[" * 1000 + "<tool_call|>"),
    ("gemma", "<|tool_call>call:f{a:1}x<tool_call|>"),
]


def parser(family: str, **more: Any) -> AnswerParser:
    pairs = (("[THINK]", "[/THINK]"), ("<|channel>thought\n", "<channel|>"), *THINK)
    return AnswerParser(family, tools=True, reasoning=pairs, schemas=SCHEMAS, **more)


def parsed(family: str, *pieces: str, **more: Any) -> Answer:
    reader = parser(family, **more)
    spans = [span for piece in pieces for span in reader.push(piece)] + reader.finish()
    assert joined(spans) == reader.answer.spans
    assert reader.answer.raw == "".join(pieces)
    return reader.answer


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[1][:24]}")
def test_what_an_answer_says(
    case: tuple[str, str, list[tuple[str, dict[str, Any]]], str, str | None],
) -> None:
    family, text, calls, visible, reasoning = case
    answer = parsed(family, text)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == calls
    assert (answer.text, answer.reasoning, answer.malformed) == (visible, reasoning, ())


@pytest.mark.parametrize(("family", "text"), BROKEN, ids=lambda value: value[:30])
def test_a_malformed_call_stays_text_and_is_flagged(family: str, text: str) -> None:
    answer = parsed(family, text)
    assert answer.tool_calls == () and answer.malformed
    assert answer.text == text


@pytest.mark.parametrize("case", [(c[0], c[1]) for c in CASES] + [b for b in BROKEN if len(b[1]) < 500],
                         ids=lambda case: f"{case[0]}: {case[1][:24]}")  # fmt: skip
def test_every_split_gives_the_same(case: tuple[str, str]) -> None:
    """At every two positions, and character by character."""
    family, text = case
    whole = parsed(family, text)
    for first in range(len(text) + 1):
        assert parsed(family, text[:first], text[first:]) == whole
        second = (first * 7 + 3) % (len(text) + 1)
        a, b = sorted((first, second))
        assert parsed(family, text[:a], text[a:b], "", text[b:]) == whole
    assert parsed(family, *text) == whole


ALPHABET = [
    "<tool_call>", "</tool_call>", '{"name": "f", "arguments": {}}', "<think>", "</think>", " ", "\n\n", "a", '"', "\\",
    "{", "}", "[TOOL_CALLS]", "[ARGS]", "[", "<|python_tag|>", "<function=", ">", "</function>", "<parameter=", "<|",
    "<|tool_call>", "<tool_call|>", "call:f{", ";", "<|channel>", "thought\n", "<channel|>", "é", "\U0001f642",
    "<|tool_call|>", D % "calls\u2581begin", D % "calls\u2581end", DEEPSEEK_CALL % ("f", "{}"), " " * (MAX_SPACE + 9),
]  # fmt: skip


@pytest.mark.parametrize("family", list(formats))
def test_random_answers_lose_nothing(family: str) -> None:
    """Random words of all families, some of them as control tokens, in random pieces."""
    rng = random.Random(family)
    for _ in range(600):
        controls = {word for word in ALPHABET if word.startswith(("<", "[")) and rng.random() < 0.3}
        words = [rng.choice(ALPHABET) for _ in range(rng.randint(0, 30))]
        outcomes = []
        for _ in range(3):
            reader = parser(family, controls=controls)
            text, pending = [], ""
            for word in [*words, None]:
                if word is not None and word not in controls:
                    pending += word
                    continue
                cuts = sorted(
                    {0, len(pending), *(rng.randint(0, len(pending)) for _ in range(rng.randint(0, 9)))}
                )
                text += [span for a, b in pairwise(cuts) for span in reader.push(pending[a:b])]
                pending = ""
                if word is not None:
                    text += reader.control(word)
            text += reader.finish()
            assert "".join(span.raw for span in text) == "".join(words)
            outcomes.append(reader.answer)
        assert outcomes[0] == outcomes[1] == outcomes[2]


def test_spelled_control_tokens_are_no_markers() -> None:
    controls = {"[TOOL_CALLS]", "<think>", "</think>"}
    assert parsed("mistral", "<think>a</think>[TOOL_CALLS]f[ARGS]{}", controls=controls).tool_calls == ()
    reader = parser("mistral", controls=controls)
    reader.control("<think>")
    reader.push("\na </think>\n")
    reader.control("</think>")
    reader.push("\nb ")
    reader.control("[TOOL_CALLS]")
    reader.push("f[ARGS]{}")
    reader.finish()
    answer = reader.answer
    assert (answer.reasoning, answer.text, [c.name for c in answer.tool_calls]) == ("a </think>", "b", ["f"])
    assert answer.raw == "<think>\na </think>\n</think>\nb [TOOL_CALLS]f[ARGS]{}"


def test_reasoning_that_the_prompt_began_and_one_that_is_broken_off() -> None:
    reader = AnswerParser(reasoning=THINK, opened="</think>")
    reader.push("\nso\n</think>\n\nHi")
    reader.finish()
    assert (reader.answer.reasoning, reader.answer.text, reader.in_reasoning) == ("so", "Hi", False)
    reader = AnswerParser(reasoning=THINK)
    reader.push("<think>and so on ")
    reader.finish()
    assert (reader.answer.reasoning, reader.answer.text, reader.in_reasoning) == ("and so on ", "", True)


def test_ids_are_nine_characters_and_the_models_own_are_kept() -> None:
    first = parsed("hermes", '<tool_call>{"name": "f"}</tool_call>' * 2, first_id=7)
    assert [call.id for call in first.tool_calls] == ["call00007", "call00008"]
    own = parsed("mistral", "[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{}")
    assert [call.id for call in own.tool_calls] == ["abcdefghi"]


@pytest.mark.parametrize(
    "text",
    ["<tool_call" * 4000, '<tool_call>{"' * 3000, "\n" * 30_000, '<tool_call>"\\' + "\\" * 30_000,
     "<tool_call></tool_call>" * 2000],
    ids=range(5),
)  # fmt: skip
def test_time_is_linear_in_the_answer(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work counted, not timed: the characters that are looked at are a small multiple of the answer's."""
    looked, original = [], AnswerParser._state

    def state(self: AnswerParser) -> tuple[object, ...]:
        looked.append(len(self._buffer))
        return original(self)

    monkeypatch.setattr(AnswerParser, "_state", state)
    reader = parser("hermes")
    for start in range(0, len(text), 7):
        reader.push(text[start : start + 7])
    reader.finish()
    assert sum(looked) < 100 * len(text)
    assert reader.answer.raw == text


# --- against the chat templates of real models ------------------------------------------------------------
ARGUMENTS: list[dict[str, Any]] = [
    {"city": "Paris", "days": 3},
    {"text": 'say "hi"\n</x> é', "flag": True, "ratio": 0.5, "items": [1, 2], "nested": {"a": "b"}},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "where"}, "text": {"type": "string", "description": "t"},
                "days": {"type": "integer", "description": "d"}, "flag": {"type": "boolean", "description": "f"},
                "ratio": {"type": "number", "description": "r"}, "items": {"type": "array", "description": "i"},
                "nested": {"type": "object", "description": "n"},
            },
            "required": ["city"],
        },
    },
}  # fmt: skip
ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "</s>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|end_of_text|>",
        "<|tool_response>")  # fmt: skip


@pytest.mark.skipif(not TEMPLATES, reason=WHY_ABSENT)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_one_family_at_most_owns_a_template(path: Any) -> None:
    source = path.read_text(encoding="utf-8")
    assert len([name for name in formats if formats[name].matches(source)]) <= 1


KNOWN = [
    ("Qwen-Qwen2.5", "hermes"), ("Qwen-Qwen3-0.6B", "hermes"), ("Qwen-QwQ", "hermes"),
    ("NousResearch-Hermes-3", "hermes"),
    ("ibm-granite-granite-4.0", "hermes"), ("Qwen3-Coder", "xml_function"), ("Qwen3.5", "xml_function"),
    ("meta-llama-Llama-3.1", "llama3"), ("meta-llama-Llama-3.2", "llama3"), ("meta-llama-Llama-3.3", "llama3"),
    ("mistralai-Mistral-Nemo", "mistral"), ("Mistral-Small-3.2", "mistral"), ("mistralai-Ministral-3", "mistral"),
    ("unsloth-mistral-Devstral", "mistral"), ("llama-cpp-deepseek-r1", "deepseek"),
    ("deepseek-ai-DeepSeek-V3.1", "deepseek"),
    ("google-gemma-4-31B-it.", "gemma"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=["simple", "all types"])
@pytest.mark.parametrize(("name", "family"), KNOWN, ids=[name for name, _ in KNOWN])
def test_calls_as_real_templates_write_them(name: str, family: str, arguments: dict[str, Any]) -> None:
    """What the model's own template writes for a call is read back as that call."""
    source = template(name)
    assert format_of(source) == family
    compiled = ChatTemplate(source)
    variables = {"bos_token": "", "eos_token": "</s>", "tools": [TOOL], "enable_thinking": False}
    asked = [{"role": "user", "content": "Weather?"}]
    call = {
        "id": "call00001",
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }
    answered = [*asked, {"role": "assistant", "content": "", "tool_calls": [call]}]

    def rendered(messages: list[dict[str, Any]], prompt: bool) -> str:
        return compiled.render({**variables, "messages": messages, "add_generation_prompt": prompt}, {})

    text = rendered(answered, False)
    start = len(rendered(asked, False))
    begins = [text.rfind(mark, start) for mark in (s.opening for s in formats[family].syntaxes)]
    begins.append(text.rfind('{"name"', start) if family == "llama3" else -1)
    answer = text[max(begins) :]
    end = min((answer.find(mark) for mark in ENDS if mark in answer), default=len(answer))
    found = parsed(family, answer[:end]) if family != "xml_function" else _typed(answer[:end])
    assert [(c.name, json.dumps(c.arguments, sort_keys=True)) for c in found.tool_calls] == [
        ("get_weather", json.dumps(arguments, sort_keys=True))
    ]


def _typed(text: str) -> Answer:
    function = TOOL["function"]
    reader = AnswerParser("xml_function", tools=True, schemas={function["name"]: function["parameters"]})
    reader.push(text)
    reader.finish()
    return reader.answer


def test_reasoning_markers_of_real_templates() -> None:
    assert reasoning_of(template("Qwen-Qwen3-0.6B")) == THINK
    assert reasoning_of(template("Qwen-Qwen2.5")) == ()
