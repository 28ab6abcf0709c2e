"""A megabyte of one kind of character costs about four times what a quarter of it does, with any pre-tokenizer."""

from __future__ import annotations

from pathlib import Path
from time import thread_time

import pytest
from text_helpers import VOCABULARIES, WHY_ABSENT, byte_vocabulary

from pellucid.text.pretokenizers import pretokenizers
from pellucid.text.tokenizer import load_tokenizer

RUNS = [
    " ",
    "\n",
    "\t",
    "a",
    "A",
    "1",
    "!",
    "é",
    "中",
    "\u0301",
    "\u3000",
    "🙂",
    "'",
    "<",
    " a",
    "\r\n",
    " \n",
    "a ",
    "  x",
]
STAGES = sorted({kind.stages for kind in pretokenizers.values()})


@pytest.mark.parametrize("stages", STAGES, ids=lambda stages: next(
    name for name, kind in pretokenizers.items() if kind.stages == stages
))  # fmt: skip
def test_words(stages: tuple[str, ...]) -> None:
    vocabulary = byte_vocabulary(stages)
    for run in RUNS:
        for end in ("", "x", " ", "\n"):
            text = run * (100_000 // len(run)) + end
            start = thread_time()
            words = vocabulary.words(text)
            assert thread_time() - start < 1.0, (run, end)  # some milliseconds; quadratic would be minutes
            assert "".join(words) == text


@pytest.mark.skipif(not VOCABULARIES, reason=WHY_ABSENT)
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_encoding(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    for run in [*RUNS, "<s>", "<|", "</s"]:
        text = run * (200_000 // len(run))
        start = thread_time()
        ids = tokenizer.encode(text, add_bos=False, parse_special=True)
        assert thread_time() - start < 2.0, run  # well below 0.2 s
        if run != "<s>" and "phi-3" not in path.name:
            assert tokenizer.decode(ids) == text
