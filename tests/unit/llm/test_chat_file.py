"""Conversations in files: the same bits after a restore without computing the history, and no file that is not ours."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_models import WEATHER

from pellucid import LLM
from pellucid.errors import ChatFileError, PellucidError, SessionFileError, UsageError
from pellucid.held import session_file as container

PARAMS: dict[str, Any] = {"max_tokens": 9, "temperature": 1.0, "seed": 3, "logprobs": 2}


def grown(llm: LLM, tools: Any = None) -> Any:
    """A conversation of several branches, at the first of them."""
    chat = llm.chat_session(
        system="S", tools=tools, template_variables={"x": [1]}, logit_bias={5: 1.5}, stop=["zz"], **PARAMS
    )
    for text in ("a", "<|end|> b"):
        chat.say(text).read()
    chat.pin()
    chat.say("c").read()
    chat.edit(0, "A").read()
    chat.edit_answer(-1, "mine")
    chat.switch(0)
    return chat


def test_saved_and_restored(models: Any, tmp_path: Path) -> None:
    """Every branch comes back, and goes on with the same tokens as the session that was never saved."""
    llm = models("chatml")
    chat = grown(llm, [WEATHER])
    file = tmp_path / "a.chat"
    chat.save(file)
    assert file.stat().st_mode & 0o777 == 0o600
    again = llm.restore_chat(file)
    again.save(tmp_path / "again.chat")
    one, two = container.SessionFile(file), container.SessionFile(tmp_path / "again.chat")
    assert one.manifest == two.manifest and one.tensors.keys() == two.tensors.keys()
    assert (again.tokens, again.messages, again.system) == (chat.tokens, chat.messages, chat.system)
    assert again.overrides.keys() == chat.overrides.keys() and len(again.branches) == len(chat.branches)
    assert llm.effective_settings(**again.overrides) == llm.effective_settings(**chat.overrides)
    for branch in range(len(chat.branches)):
        chat.switch(branch)
        again.switch(branch)
        assert again.tokens == chat.tokens and again.messages == chat.messages
        assert [t.change for t in again.turns] == [t.change for t in chat.turns]
        first, second = chat.fork().say("d").read(), again.fork().say("d").read()
        assert (first.prompt.ids, first.token_ids) == (second.prompt.ids, second.token_ids)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.chat", "again.chat"]
    with pytest.raises(UsageError, match="expected those of the saved"):
        llm.restore_chat(file, tools=[])


@pytest.mark.parametrize("template", ["chatml", "trimmed", "reasoning"])
@pytest.mark.parametrize("kv_format", ["f32", "q8_0", "i16"])
def test_the_history_is_not_computed_again(
    models: Any, tmp_path: Path, template: str, kv_format: str
) -> None:
    """In a new engine each branch goes on with the bits and the counts of the one that was never away: its history is
    found there, and computed anew only where the file's keys and values are left."""
    path, file = models(template).info.path, tmp_path / "a.chat"
    with LLM(path, kv_format=kv_format, num_threads=2) as llm:
        chat = grown(llm)
        chat.save(file)
        stayed = []
        for branch in range(len(chat.branches)):
            chat.switch(branch)
            stayed.append(chat.fork().say("and then?").read())
    for kv in (True, False):
        with LLM(path, kv_format=kv_format, num_threads=1, prefill_chunk=5) as llm:
            again = llm.restore_chat(file, kv=kv)
            for branch, before in enumerate(stayed):
                again.switch(branch)
                there = len(again.tokens)
                turn = again.fork().say("and then?").read()
                assert (turn.prompt.ids, turn.token_ids) == (before.prompt.ids, before.token_ids)
                assert turn.result.logprobs == before.result.logprobs  # floats: the same bits
                counts = turn.result.counts
                if kv:
                    assert counts.reused == before.result.counts.reused
                    if again.turns[-1].finish_reason != "edited":
                        assert counts.reused >= turn.change.kept - 1 > 0
                elif branch == 0:
                    assert counts.reused <= 1 and there > 50  # the BOS, of the fingerprint's tokens


def test_blocks_of_several_branches_are_written_once(models: Any, tmp_path: Path) -> None:
    llm = models("chatml")
    chat = llm.chat_session(system="A long system message. " * 8, **PARAMS)
    chat.say("a").read()
    chat.save(tmp_path / "one")
    for seed in range(5):
        chat.regenerate(seed=seed).read()
    chat.save(tmp_path / "six")
    one, six = (container.SessionFile(tmp_path / name) for name in ("one", "six"))
    tables = [state["blocks"] for state in six.manifest["branches"]]
    shared = len(chat.turns[0].prompt) // six.manifest["model"]["block_size"]
    assert len(tables) == 6 and shared > 2
    assert len({tuple(table[:shared]) for table in tables}) == 1
    assert sorted({row for table in tables for row in table}) == list(range(len(six.tensors["kv.0"])))
    assert len(six.tensors["kv.0"]) <= len(one.tensors["kv.0"]) + 5 * 2


def test_little_room_and_no_prefix_cache(models: Any, tmp_path: Path) -> None:
    """What has no room is computed again, with the same bits; the conversation's own branch comes first."""
    path, file = models("chatml").info.path, tmp_path / "a.chat"
    with LLM(path) as llm:
        chat = grown(llm)
        chat.save(file)
        before = chat.say("d").read()
    for options in ({"prefix_caching": False}, {"context_length": 320, "kv_memory": 1 << 18}):
        with LLM(path, **options) as small:
            again = small.restore_chat(file)
            turn = again.say("d").read()
            assert turn.token_ids == before.token_ids and turn.result.logprobs == before.result.logprobs
            again.save(tmp_path / "b.chat")
            assert small.restore_chat(tmp_path / "b.chat").tokens == again.tokens


def test_before_the_first_turn(models: Any, tmp_path: Path) -> None:
    llm, file = models("chatml"), tmp_path / "empty"
    llm.chat_session(system="S", **PARAMS).save(file)
    again = llm.restore_chat(file)
    assert (again.system, len(again), again.overrides) == ("S", 0, PARAMS)
    with pytest.raises(SessionFileError, match="without a turn; use restore_chat"):
        llm.restore(file)


def test_a_full_context(models: Any, tmp_path: Path) -> None:
    """A conversation that ended where the context did, and one that slid on, are saved all the same."""
    path, file = models("chatml").info.path, tmp_path / "full"
    for overflow in ("stop", "slide"):
        with LLM(path, context_length=64) as llm:
            chat = llm.chat_session(ignore_eos=True, temperature=1.0, seed=1)
            chat.say("a", overflow=overflow, max_tokens=100).read()
            chat.save(file)
            again = llm.restore_chat(file)
            assert again.tokens == chat.tokens and len(again.tokens) >= 64


def test_as_a_generation(models: Any, tmp_path: Path) -> None:
    """A chat file is a session file; a session file of a generation is no chat."""
    llm, file = models("chatml"), tmp_path / "a.chat"
    chat = llm.chat_session(**PARAMS)
    chat.say("a").read()
    chat.save(file)
    generation = llm.restore(file)
    assert generation.prompt_tokens == chat.tokens and generation.extra["format"] == "pellucid-chat"
    generation.save(tmp_path / "plain")
    with pytest.raises(ChatFileError, match="of a generation"):
        llm.restore_chat(tmp_path / "plain")


def test_a_file_of_another_model_or_none_is_refused(models: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.chat"
    llm = models("chatml")
    chat = llm.chat_session(**PARAMS)
    chat.say("a").read()
    chat.save(file)
    with pytest.raises(ChatFileError, match="another chat template"):
        models("plain").restore_chat(file)
    for options, what in (
        ({"backend": "reference", "kv_format": "f32"}, "backend"),
        ({"kv_format": "q8_0"}, "KV format"),
    ):
        with LLM(llm.info.path, **options) as other:
            with pytest.raises(ChatFileError, match=f"another {what}.*kv=False"):
                other.restore_chat(file)
            again = other.restore_chat(file, kv=False)
            assert again.tokens == chat.tokens
            assert again.say("b").read().result.counts.reused <= 1  # the BOS, of the fingerprint's tokens
    with pytest.raises(ChatFileError, match="no such file"):
        llm.restore_chat(tmp_path / "nothing")
    with pytest.raises(ChatFileError, match="cannot be written"):
        chat.save(tmp_path / "no" / "folder")
    file.write_text(json.dumps({"format": "pellucid-chat", "version": 1, "turns": []}))
    with pytest.raises(ChatFileError, match="no whole session file"):
        llm.restore_chat(file)


def test_a_full_disk_leaves_the_old_file(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.chat"
    chat = models("chatml").chat_session(**PARAMS)
    chat.say("a").read()
    chat.save(file)
    before = file.read_bytes()
    chat.say("b").read()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(ChatFileError, match="No space left"):
                chat.save(file)
        assert file.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a.chat"]


def test_damaged_files_are_one_line_errors(models: Any, tmp_path: Path) -> None:
    """Cut at many places, bytes changed, and, under a right digest, every value of the JSON replaced by others."""
    llm, file = models("chatml"), tmp_path / "a.chat"
    chat = llm.chat_session(system="S", **PARAMS)
    for text in ("a", "b"):
        chat.say(text).read()
    chat.save(file)
    data, whole = file.read_bytes(), container.SessionFile(file)
    rng = random.Random(1)
    for end in rng.sample(range(len(data)), 60):
        file.write_bytes(data[:end])
        refused(llm, file)
    for at in rng.sample(range(len(data)), 200):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        if data[at] != 32:  # a space may only pad the header
            refused(llm, file)
    tensors = {name: np.array(tensor) for name, tensor in whole.tensors.items()}
    count = total = 0
    for wrong in (None, -1, 10**9, "x", [], {}, True, [[]], 1.5):
        for extra in replaced(whole.manifest["extra"], wrong):
            container.write(file, {**whole.manifest, "extra": extra}, tensors)
            total += 1
            try:
                llm.restore_chat(file).say("c", max_tokens=1).read()
            except PellucidError as error:
                count += 1
                assert "\n" not in str(error) and len(str(error)) < 600
    assert count > total // 2
    # Tokens that are in the vocabulary, and do not spell what stands beside them.
    extra = json.loads(json.dumps(whole.manifest["extra"]))
    segment = next(
        each for each in extra["turns"][0]["prompt"] if isinstance(each[0], str) and each[0].strip()
    )
    segment[1] = [(token + 1) % 300 for token in segment[1]]
    container.write(file, {**whole.manifest, "extra": extra}, tensors)
    with pytest.raises(ChatFileError, match="spell something else"):
        llm.restore_chat(file)


def refused(llm: LLM, file: Path) -> None:
    with pytest.raises(ChatFileError) as caught:
        llm.restore_chat(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def replaced(value: Any, wrong: Any) -> Iterator[Any]:
    """The same data with one of its values `wrong`, for each of its values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:12]:
        for changed in (wrong, *replaced(inner, wrong)):
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = changed
            yield copy


CHILD = """
import sys
from pellucid import LLM
chat = LLM(sys.argv[1]).chat_session(max_tokens=3, seed=1, temperature=1.0)
chat.say("a").read()
chat.save(sys.argv[2])  # a slow machine may not come to the next one
print("ready", flush=True)
while True:
    chat.save(sys.argv[2])
    chat.regenerate(seed=len(chat.branches)).read()
"""


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_leaves_a_whole_file(models: Any, tmp_path: Path, times: int) -> None:
    llm, path = models("chatml"), tmp_path / "a.chat"
    rng, seen = random.Random(3), set()
    for _ in range(times):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(llm.info.path), str(path)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(0.02 + rng.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if path.exists():
            chat = llm.restore_chat(path)
            seen.add(len(chat.branches))
            chat.say("b").read()
    assert seen
