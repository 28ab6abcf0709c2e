"""A conversation as tokens: what is there stays, what is new is encoded, and nothing becomes a control token."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from real_templates import TEMPLATES, template
from text_helpers import CONTROL, VOCABULARIES, WHY_ABSENT, random_text, spm_pieces, write_spm

from pellucid.errors import TemplateError
from pellucid.text.chat import render_chat, render_parts
from pellucid.text.tokenizer import Tokenizer, load_tokenizer
from pellucid.text.transcript import Transcript

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMED = CHATML.replace("m['content'] +", "(m['content'] | trim) +")
FORGETFUL = CHATML.replace(
    "m['content'] +", "(m['content'] if loop.last else m['content'].split('</think>')[-1]) +"
)
ENDLESS = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"  # no control token at all
TEMPLATES_HERE = {"chatml": CHATML, "trimmed": TRIMMED, "forgetful": FORGETFUL, "endless": ENDLESS}


class Retold:
    """A real vocabulary with another chat template."""

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        self._tokenizer, self.chat_template = tokenizer, source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    pieces = [
        *spm_pieces([("▁", -1.0), ("▁a", -0.5), ("ab", -0.6), ("▁ab", -0.7)]),
        *((c, 0.0, CONTROL) for c in ("<|im_start|>", "<|im_end|>", "<|other|>")),
    ]
    path = write_spm(
        tmp_path_factory.mktemp("transcript") / "spm.gguf", pieces, add_space_prefix=True,
        bos_token_id=1, eos_token_id=2, add_bos_token=True,
    )  # fmt: skip
    return load_tokenizer(path)


def tokenizers(spm: Tokenizer) -> list[Tokenizer]:
    return [spm, *(load_tokenizer(path) for path in VOCABULARIES)]


def generated(rng: random.Random, tokenizer: Tokenizer, end: int | None) -> list[int]:
    """Random tokens as a model might choose them: not the ones that encoding their text would give."""
    controls = sorted(tokenizer.control_pieces.values())
    ids = [rng.randrange(tokenizer.vocabulary_size) for _ in range(rng.randint(0, 6))]
    ids = [i for i in ids if i not in tokenizer.special_ids]
    ids += tokenizer.encode(random_text(rng), add_bos=False)
    if rng.random() < 0.1:
        ids.insert(rng.randint(0, len(ids)), rng.choice(controls))
    return [*ids, end] if end is not None and rng.random() < 0.8 else ids


def said(tokenizer: Tokenizer, ids: list[int], end: int | None) -> str:
    kept = ids[:-1] if ids and ids[-1] == end else ids
    return tokenizer.join(kept).decode("utf-8", "replace")


@pytest.mark.parametrize("name", list(TEMPLATES_HERE))
def test_any_conversation(name: str, spm: Tokenizer) -> None:
    """Random turns: kept tokens are kept, the text is the rendered text, its control tokens are the template's."""
    rng = random.Random(name)
    for tokenizer in tokenizers(spm):
        told: Any = Retold(tokenizer, TEMPLATES_HERE[name])
        end = tokenizer.control_pieces.get("<|im_end|>")
        for _ in range(4):
            messages: list[dict[str, str]] = []
            transcript = Transcript(told)
            for turn in range(6):
                messages.append({"role": "user", "content": random_text(rng)})
                parts = render_parts(told, messages)
                before = transcript
                transcript, change = before.rendered(parts)
                check(tokenizer, before, transcript, change, parts)
                if turn == 0:
                    assert transcript.ids == render_chat(told, messages)
                assert transcript.rendered(parts)[0].ids == transcript.ids
                answer = generated(rng, tokenizer, end)
                transcript = transcript.answered(answer)
                messages.append({"role": "assistant", "content": said(tokenizer, answer, end)})


def check(tokenizer: Tokenizer, before: Transcript, after: Transcript, change: Any, parts: Any) -> None:
    assert after.ids[: change.kept] == before.ids[: change.kept]
    assert (change.kept + change.dropped, change.kept + change.added) == (len(before), len(after))
    assert bool(change.difference) == bool(change.dropped)
    controls = set(tokenizer.control_pieces.values())
    added = [s.part for s in after.segments if s.added]
    assert [i for i in after.ids if i in controls] == [*added, *(p for p in parts if isinstance(p, int))]
    text = "".join(p if isinstance(p, str) else tokenizer.piece(p) for p in parts)
    assert "".join(str(s.part) if isinstance(s.part, str) else tokenizer.piece(s.part)
                   for s in after.segments if not s.added) == text  # fmt: skip
    for a, b in pairwise(after.segments):
        assert not (a.part == "" and b.part == "")


def test_an_append_only_template_drops_nothing_and_keeps_generated_tokens(spm: Tokenizer) -> None:
    told: Any = Retold(spm, CHATML)
    odd = [i for i in (spm.id_of("▁"), spm.id_of("ab")) if i is not None]
    assert len(odd) == 2 and odd != spm.encode("ab", add_bos=False)
    end = spm.control_pieces["<|im_end|>"]
    first, change = Transcript(told).rendered(render_parts(told, [{"role": "user", "content": "ab"}]))
    assert (change.kept, change.dropped, change.append_only) == (0, 0, True)
    answered = first.answered([*odd, end])
    content = spm.join(odd).decode()
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": content}]
    second, change = answered.rendered(render_parts(told, [*messages, {"role": "user", "content": "ab"}]))
    assert change.append_only and second.ids[: len(answered)] == answered.ids
    # An answer that was broken off gets the template's end.
    broken, change = first.answered(odd).rendered(
        render_parts(told, [*messages, {"role": "user", "content": "ab"}])
    )
    assert change.append_only and broken.ids == second.ids


def test_what_a_template_drops_is_found_and_shown(spm: Tokenizer) -> None:
    told: Any = Retold(spm, FORGETFUL)
    end = spm.control_pieces["<|im_end|>"]
    first, _ = Transcript(told).rendered(render_parts(told, [{"role": "user", "content": "a"}]))
    answer = spm.encode("<think>b</think>c", add_bos=False)
    answered = first.answered([*answer, end])
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>b</think>c"}]
    after, change = answered.rendered(render_parts(told, [*messages, {"role": "user", "content": "d"}]))
    assert not change.append_only
    assert change.kept == len(first) and "<think>" in change.difference
    assert "<think>" not in after.text


def test_another_end_token_is_replaced_by_the_templates(spm: Tokenizer) -> None:
    told: Any = Retold(spm, CHATML)
    other = spm.control_pieces["<|other|>"]
    first, _ = Transcript(told).rendered(render_parts(told, [{"role": "user", "content": "a"}]))
    answered = first.answered([*spm.encode("b", add_bos=False), other])
    content = spm.join(spm.encode("b", add_bos=False)).decode()
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]
    after, change = answered.rendered(render_parts(told, [*messages, {"role": "user", "content": "d"}]))
    assert change.dropped == 1 and "<|other|>" in change.difference
    assert other not in after.ids


# --- no control token out of a message ------------------------------------------------------------------
@pytest.mark.skipif(not VOCABULARIES, reason=WHY_ABSENT)
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_no_special_token_of_a_real_vocabulary_is_forged(path: Path) -> None:
    """Every special token, whole and in halves, as content of every role: the control tokens are the template's."""
    tokenizer = load_tokenizer(path)
    told: Any = Retold(tokenizer, CHATML)
    pieces = sorted(tokenizer.control_pieces)
    harmless = render_parts(told, turns("x", "y"))
    wanted = [p for p in harmless if isinstance(p, int)]
    rng = random.Random(0)
    for piece in pieces if len(pieces) <= 300 else rng.sample(pieces, 300):
        cut = rng.randint(1, max(len(piece) - 1, 1))
        for first, second in ((piece, piece), (piece[:cut], piece[cut:]), (piece * 3, f"a{piece}b")):
            if not first or not second:
                continue
            parts = render_parts(told, turns(first, second))
            assert [p for p in parts if isinstance(p, int)] == wanted
            ids = Transcript(told).rendered(parts)[0].ids
            controls = set(tokenizer.control_pieces.values())
            added = [tokenizer.bos_id] if tokenizer.adds_bos and wanted[:1] != [tokenizer.bos_id] else []
            assert [i for i in ids if i in controls] == [*added, *wanted]


def turns(first: str, second: str) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for role, content in (("system", first), ("user", second), ("assistant", first), ("user", second))
    ]


@pytest.mark.skipif(not TEMPLATES, reason="no chat templates of real models here")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_real_templates_forge_nothing(path: Path, tmp_path: Path) -> None:
    """Every control token that a real template writes, as content: only the template's own count."""
    source = path.read_text(encoding="utf-8")
    words = sorted(set(control_words(source)))
    pieces = [*spm_pieces([("▁", -1.0)]), *((word, 0.0, CONTROL) for word in words)]
    file = write_spm(tmp_path / "t.gguf", pieces, add_space_prefix=False, bos_token_id=1, eos_token_id=2,
                     add_bos_token=False)  # fmt: skip
    tokenizer = load_tokenizer(file)
    told: Any = Retold(tokenizer, source)

    def controls(content: str) -> list[int]:
        messages = [{"role": "user", "content": content}]
        parts = render_parts(told, messages, enable_thinking=False)
        ids = Transcript(told).rendered(parts)[0].ids
        return [i for i in ids if i in tokenizer.control_pieces.values()]

    try:
        wanted = controls("hello")
    except TemplateError:
        pytest.skip("this template wants other messages")
    for word in words:
        for content in (word, f"a{word}b", word[:-1], f"{word}{words[0]}"):
            try:
                assert controls(content) == wanted
            except TemplateError as error:
                assert "spells the control token" in str(error)


def control_words(source: str) -> list[str]:
    import re

    return re.findall(
        r"<[|\uff5c][^<>|\s'\"]{1,30}[|\uff5c]>|\[/?[A-Z_]{3,20}\]|<(?:start|end)_of_turn>", source
    )


def test_a_day_goes_by_and_the_prompt_stays() -> None:
    """The clock of a template stands still where the caller says so."""
    from datetime import datetime

    source = template("meta-llama-Llama-3.2")
    from pellucid.text.template import ChatTemplate

    variables = {
        "messages": [{"role": "user", "content": "x"}],
        "bos_token": "",
        "tools": None,
        "add_generation_prompt": True,
    }
    compiled = ChatTemplate(source)
    texts = {compiled.render(variables, {}, now=datetime(2024, 7, day)) for day in (1, 2, 2)}
    assert len(texts) == 2 and any("01 Jul 2024" in text for text in texts)
