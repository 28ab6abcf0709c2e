"""Every pre-tokenizer kind cuts words exactly as the regular expressions of tokenizer.json do in `tokenizers`."""

from __future__ import annotations

import random
import re

import pytest
from text_helpers import byte_vocabulary, random_text
from tokenizers import Regex, pre_tokenizers

from pellucid import _native
from pellucid.text.pretokenizers import pretokenizers

# What the digit rules are in a regular expression.
RULES = {
    "@numbers-by-thousands": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
    "@digits-by-thousands": r"\d{1,3}(?=(?:\d{3})*(?!\d))",
    "@digits-by-thousands-at-boundary": r"\d{1,3}(?=(?:\d{3})*\b)",
}
STAGES = sorted({kind.stages for kind in pretokenizers.values()})


def reference(stages: tuple[str, ...], text: str) -> list[str]:
    splits = [pre_tokenizers.Split(Regex(RULES.get(stage, stage)), "isolated") for stage in stages]
    return [piece for piece, _ in pre_tokenizers.Sequence(splits).pre_tokenize_str(text)]


@pytest.mark.parametrize("stages", STAGES, ids=lambda stages: next(
    name for name, kind in pretokenizers.items() if kind.stages == stages
))  # fmt: skip
def test_words_are_those_of_the_library(stages: tuple[str, ...]) -> None:
    vocabulary = byte_vocabulary(stages)
    rng = random.Random(7)
    for _ in range(400):
        text = random_text(rng)
        assert vocabulary.words(text) == reference(stages, text), text


@pytest.mark.parametrize(
    "name", [r"\p{L}", r"\p{N}", r"\p{P}", r"\p{S}", r"\p{M}", r"\p{Lu}", r"\p{Lm}", r"\s"]
)
def test_character_classes_agree_on_every_code_point(name: str) -> None:
    """A run of all code points, cut where the class begins and ends."""
    vocabulary = byte_vocabulary([f"{name}+"])
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for start in range(0, len(points), 1 << 16):
        text = "".join(map(chr, points[start : start + (1 << 16)]))
        assert vocabulary.words(text) == reference((f"{name}+",), text)


def test_han_agrees_on_every_code_point() -> None:
    text = "".join(chr(c) for c in range(0x2E00, 0x32400) if not 0xD800 <= c < 0xE000)
    assert byte_vocabulary([r"\p{Han}+"]).words(text) == reference((r"\p{Han}+",), text)


@pytest.mark.parametrize(
    "source", ["(", "a)", "[a", "a||b", "", r"\p{Greek}", r"\q", "a.b", "(ab)*c", "a{", "(?<=a)b", "[z"]
)
def test_a_pattern_outside_of_the_dialect_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="pattern at byte"):
        byte_vocabulary([source])


def test_every_kind_of_the_issue_is_there() -> None:
    names = """llama-bpe llama3 deepseek-llm deepseek-coder deepseek-v3 falcon mpt starcoder gpt-2 refact command-r
    qwen2
    stablelm2 olmo dbrx smaug-bpe poro-chat chatglm-bpe viking jais tekken smollm codeshell bloom gpt3-finnish exaone
    exaone4 minerva-7b megrez gpt-4o superbpe trillion bailingmoe llama4 seed-coder hunyuan kimi-k2 default"""
    assert set(re.findall(r"\S+", names)) <= set(pretokenizers)


def test_words_join_to_the_text() -> None:
    rng = random.Random(3)
    for stages in STAGES:
        text = random_text(rng, longest=200)
        assert "".join(byte_vocabulary(stages).words(text)) == text
    assert isinstance(byte_vocabulary(), _native.Vocabulary)
