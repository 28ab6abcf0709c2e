"""Chat: the ids of the plain concatenation where messages are harmless, and no control token out of a message ever."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from text_helpers import CONTROL, TOKENIZERS, VOCABULARIES, WHY_ABSENT, random_text, spm_pieces, write_spm

from pellucid.errors import TemplateError
from pellucid.text.chat import render_chat, render_chat_text
from pellucid.text.tokenizer import Tokenizer, load_tokenizer

CONTROLS = ["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|end|>", "<|eos|>"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Puts its control tokens together, and begins with BOS.
PHI = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Writes messages next to halves of control tokens.
HALVES = "{% for m in messages %}<|{{ m['content'] }}|><{{ m['content'] }}>{% endfor %}"
# Looks into messages, as templates of reasoning models do, and puts control tokens together.
THINKING = (
    "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' }}{% if '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
)
TOOLS = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for m in messages %}<|{{ m.role }}|>"
    "{% for call in m.tool_calls or [] %}{% for key, value in call.arguments.items() %}<{{ key }}>{{ value }}"
    "{% endfor %}{% endfor %}{{ m.content or '' }}<|end|>{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "phi": PHI, "halves": HALVES, "thinking": THINKING, "tools": TOOLS}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("chat")
    pieces = [*spm_pieces([("▁", -1.0), ("<|", -2.0), ("|>", -2.0)]), *((c, 0.0, CONTROL) for c in CONTROLS)]
    return {
        name: load_tokenizer(
            write_spm(
                folder / f"{name}.gguf",
                pieces,
                add_space_prefix=False,
                bos_token_id=1,
                eos_token_id=2,
                add_bos_token=name == "phi",
                **{"tokenizer.chat_template": template},
            )
        )
        for name, template in TEMPLATES.items()
    }


def user(content: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("name", ["chatml", "phi", "thinking"])
def test_harmless_messages_are_the_plain_concatenation(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer = tokenizers[name]
    rng = random.Random(4)
    for _ in range(60):
        messages = [
            {"role": role, "content": random_text(rng, ["</think>", "  ", "think", "<", "|"])}
            for role in ("user", "assistant", "user")
        ]
        text = render_chat_text(tokenizer, messages)
        assert render_chat(tokenizer, messages) == tokenizer.encode(text, add_bos=False, parse_special=True)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_no_control_token_out_of_a_message(tokenizers: dict[str, Tokenizer], name: str) -> None:
    """Every control token, its parts, and combinations, as content: the control tokens of the conversation are
    those of the same conversation with harmless content."""
    tokenizer = tokenizers[name]
    specials = sorted(tokenizer.special_ids)
    spellings = [tokenizer.piece(i) for i in specials]
    inner = [s.strip("<|>") for s in spellings]
    rng = random.Random(5)
    contents = [*spellings, *inner, *(s[1:] for s in spellings), *(s[:-1] for s in spellings)]
    contents += [
        random_text(rng, [*spellings, *inner, "<|", "|>", "<", ">", "</think>"], 6) for _ in range(150)
    ]

    def controls(messages: list[dict[str, Any]]) -> list[int]:
        ids = render_chat(tokenizer, messages, tools=[{"name": messages[0]["content"]}])
        return [i for i in ids if i in tokenizer.special_ids and i != tokenizer.unknown_id]

    expected = controls(user("harmless"))
    refused = 0
    for content in contents:
        try:
            assert controls(user(content)) == expected, content
        except TemplateError as error:
            assert "control token" in str(error)
            refused += 1
    # Only a template that both looks into messages and puts control tokens together may refuse, and then rarely.
    assert refused == 0 or (name == "thinking" and refused < len(contents) / 4)


def test_control_text_of_a_message_is_kept_as_text(tokenizers: dict[str, Tokenizer]) -> None:
    for name in ("chatml", "phi", "tools"):
        tokenizer = tokenizers[name]
        message = "a <|im_end|> <|end|> b"
        ids = render_chat(tokenizer, user(message))
        assert message in tokenizer.decode(ids)
        assert tokenizer.decode(ids, skip_special=True).count("<|im_end|>") == 1


def test_keys_and_arguments_of_tool_calls_are_messages_too(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["tools"]
    bos = tokenizer.bos_id
    for arguments in ({"s": "x"}, {"x": "<s>"}, {"/s": "</s>"}):
        call = [{"role": "assistant", "content": None, "tool_calls": [{"arguments": arguments}]}]
        ids = render_chat(tokenizer, call)
        assert bos not in ids
        assert tokenizer.id_of("</s>") not in ids


def test_roles_that_spell_control_tokens(tokenizers: dict[str, Tokenizer]) -> None:
    with pytest.raises(TemplateError, match="role"):
        render_chat(tokenizers["chatml"], [{"role": "<|im_end|>", "content": ""}])
    ids = render_chat(tokenizers["phi"], [{"role": "end", "content": "x"}], add_generation_prompt=False)
    end = tokenizers["phi"].id_of("<|end|>")
    assert ids.count(end or 0) == 1  # the template's own; "<|" + "end" + "|>" stays text


def test_private_use_characters_do_not_become_marks(tokenizers: dict[str, Tokenizer]) -> None:
    marks = "".join(map(chr, range(0x100000, 0x100020)))
    tokenizer = tokenizers["chatml"]
    harmless = [i for i in render_chat(tokenizer, user("x")) if i in tokenizer.special_ids]
    ids = render_chat(tokenizer, user(marks))
    assert [i for i in ids if i in tokenizer.special_ids] == harmless
    assert marks in tokenizer.decode(ids)


def test_one_bos(tokenizers: dict[str, Tokenizer]) -> None:
    phi = tokenizers["phi"]  # its template writes BOS, its file asks for BOS
    ids = render_chat(phi, user("<s>hi"))
    assert ids.count(phi.bos_id or 0) == 1
    assert ids[0] == phi.bos_id


@pytest.mark.parametrize(
    "messages",
    [
        [], "hi", {"role": "user"}, ["hi"], [{"content": "x"}], [{"role": "user"}], [{"role": "user", "content": 3}],
        [{"role": 1, "content": "x"}], [{"role": "user", "content": [{"type": "image"}]}],
        [{"role": "user", "content": "x", "extra": object()}],
    ],
)  # fmt: skip
def test_wrong_messages(tokenizers: dict[str, Tokenizer], messages: Any) -> None:
    with pytest.raises(TemplateError) as caught:
        render_chat(tokenizers["chatml"], messages)
    assert "\n" not in str(caught.value)


def test_text_parts_and_variables(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["chatml"]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert render_chat(tokenizer, [{"role": "user", "content": parts}]) == render_chat(
        tokenizer, user("a\nb")
    )
    without = render_chat_text(tokenizer, user("x"), add_generation_prompt=False)
    assert render_chat_text(tokenizer, user("x")) == without + "<|im_start|>assistant\n"
    bos = tokenizer.piece(tokenizer.bos_id or 0)
    tokenizer.chat_template = "{{ bos_token }}|{{ weekday }}|{{ messages[0].content }}"
    try:
        assert render_chat_text(tokenizer, user("x"), weekday="Monday") == f"{bos}|Monday|x"
    finally:
        tokenizer.chat_template = CHATML


@pytest.mark.skipif(not VOCABULARIES, reason=WHY_ABSENT)
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_real_vocabularies(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    if tokenizer.chat_template is None:
        with pytest.raises(TemplateError, match="no chat template"):
            render_chat(tokenizer, user("x"))
        tokenizer.chat_template = CHATML
    harmless = [i for i in render_chat(tokenizer, user("x")) if i in tokenizer.special_ids]
    for token_id in sorted(tokenizer.special_ids):
        for content in (tokenizer.piece(token_id), f"a{tokenizer.piece(token_id)} b"):
            ids = render_chat(tokenizer, user(content))
            assert [i for i in ids if i in tokenizer.special_ids] == harmless, content
    assert TOKENIZERS.is_dir()
