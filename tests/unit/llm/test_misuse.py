"""What a program may do wrong with an LLM: an error of ours in one line, never a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pellucid import LLM, load_tokenizer
from pellucid.errors import ModelNotFoundError, PellucidError, UsageError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("model", [None, 5, b"x", [], {}, True])
def test_a_model_that_is_no_path(model):
    with pytest.raises(UsageError, match="expected a path or a name"):
        LLM(model)


def test_a_name_that_the_system_refuses():
    with pytest.raises(ModelNotFoundError) as caught:
        LLM("a" * 5000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "options", [{"max_sequences": 10**9}, {"prefill_chunk": 10**12}, {"num_threads": 10**6}]
)
def test_sizes_that_no_machine_has(tiny_path, options):
    with pytest.raises(UsageError, match=f"{next(iter(options))}: expected an int from 1 to "):
        LLM(tiny_path, **options)


@pytest.mark.parametrize("flag", ["parse_special", "model_defaults"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_flags_are_true_or_false(llm, flag, value):
    for call in (llm.generate, llm.stream):
        with pytest.raises(UsageError, match=f"{flag}: expected True or False"):
            call("hello", max_tokens=1, **{flag: value})


@pytest.mark.parametrize("variables", [5, {1: 2}, {"messages": []}, {"tokenizer": 1}, {"self": 1}, "x"])
def test_template_variables(llm, variables):
    for call in (llm.chat, llm.stream_chat):
        with pytest.raises(UsageError, match="^template_variables: ") as caught:
            call([{"role": "user", "content": "hello"}], template_variables=variables)
        assert "\n" not in str(caught.value)


def test_a_token_of_the_logprobs_shows_its_text(llm):
    """Not the vocabulary's way to write it (a byte-level vocabulary spells a space as U+0120)."""
    result = llm.generate("hello world", max_tokens=8, logprobs=20, temperature=5.0, seed=1)
    seen = {a.token_id: a.text for token in result.logprobs for a in (token, *token.top)}
    assert len(seen) > 20
    different = 0
    for token, text in seen.items():
        piece, data = llm.tokenizer.piece(token), llm.tokenizer.token_bytes(token)
        whole = data.decode("utf-8", "replace")
        parts = "".join(chr(byte) if byte < 128 else f"\\x{byte:02x}" for byte in data)  # of a character
        expected = (whole if whole.encode() == data else parts) or piece
        assert text == expected
        different += expected != piece
    assert different


@pytest.mark.parametrize("ending", ["", "llm.close()", "sys.exit(3)", "raise SystemExit(3)"])
def test_leaving_while_another_thread_generates(tiny_path, ending):
    """The interpreter must not end a daemon thread amid native code: C++ would abort the process."""
    code = (
        "import sys, threading, time\n"
        "from pellucid import LLM\n"
        f"llm = LLM({str(tiny_path)!r}, num_threads=2)\n"
        "def work():\n"
        "    while True: llm.logits([5] * 512)\n"
        "for _ in range(3): threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.3)\n" + ending
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "src"))
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=600, env=environment)
        assert done.returncode == (3 if "3" in ending else 0)
        assert b"terminate called" not in done.stderr
        assert b"nanobind" not in done.stderr


def test_an_error_is_one_line(llm):
    for call in (
        lambda: llm.generate("hello", parse_special="no"),
        lambda: llm.generate("hello", stop="a\nb", top_k=-1),
        lambda: LLM("a\nb"),
    ):
        with pytest.raises(PellucidError) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_integers_of_numpy_are_integers(tiny_path):
    sizes = {"num_threads": np.int64(1), "prefill_chunk": np.uint8(7), "max_sequences": np.int32(3)}
    with LLM(tiny_path, **sizes, context_length=np.int16(64), kv_memory=np.int64(1 << 20)) as loaded:
        assert {name: loaded.settings[name].value for name in sizes} == {k: int(v) for k, v in sizes.items()}
        assert all(type(loaded.settings[name].value) is int for name in sizes)
    for wrong in (np.float32(2), np.bool_(True), 2.0, "2", True, np.int64(0)):
        with pytest.raises(UsageError, match="num_threads: expected an int"):
            LLM(tiny_path, num_threads=wrong)


@pytest.mark.parametrize("progress", [3, "bar", object()])
def test_what_is_no_progress(tiny_path, progress):
    with pytest.raises(UsageError, match="progress: expected an object with begin"):
        LLM(tiny_path, progress=progress)


@pytest.mark.parametrize("ids", [None, 5, "abc", b"abc", [1.5], [True], [None], ["a"], [[1]]])
def test_what_is_no_token_id(llm, ids):
    with pytest.raises(UsageError, match=r"expected (a )?token id"):
        llm.tokenizer.decode(ids)
    assert llm.tokenizer.decode(np.array([5, 6])) == llm.tokenizer.decode([5, np.int32(6)])


@pytest.mark.parametrize("path", [None, 5, [], b"x"])
def test_a_tokenizer_that_is_no_path(path):
    with pytest.raises(UsageError, match="load_tokenizer: expected a path"):
        load_tokenizer(path)
