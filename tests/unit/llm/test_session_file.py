"""Saved generations: the same bits after a restore, and no file that is not whole or not ours is accepted."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM
from pellucid.errors import SessionFileError, UsageError
from pellucid.held import session_file as container

PROMPT = "Once upon a time there was"
PARAMS = {
    "temperature": 1.1,
    "seed": 4,
    "ignore_eos": True,
    "max_tokens": 60,
    "logit_bias": {5: 1.5},
    "stop": ["@@@"],
}


def tree(llm, length=40):
    root = llm.begin(PROMPT, **PARAMS)
    root.run(length)
    left, right = root.fork(), root.fork(seed=8)
    left.rewind(10).force(77)
    right.run(5)
    right.branch.label = "right"
    low = right.fork()
    low.append([9, 9, 9], as_prompt=True)
    low.peek().top(1)
    low.choose()
    return root, left, right, low


def state(generation):
    return (
        generation.prompt, generation.prompt_tokens, generation.tokens, generation.text, generation.finish_reason,
        generation.records, generation.steps, generation.params, generation.sample_index, generation.branch.label,
        generation.branch.forked_at, generation.branch.depth,
    )  # fmt: skip


@pytest.fixture
def saved(llm, tmp_path):
    made = tree(llm)
    path = tmp_path / "a.session"
    made[1].save(path, extra={"mine": [1, "two", None]})
    return path, made


def test_all_comes_back(llm, saved):
    path, made = saved
    head = llm.restore(path)
    assert head.extra == {"mine": [1, "two", None]}
    found = list(head.branch.root.generation.walk())
    assert [state(g) for g in found] == [state(g) for g in made]
    for restored, old in zip(found, made, strict=True):
        assert np.array_equal(restored.peek().logits, old.peek().logits)
        assert (restored.run(8), restored.tokens) == (old.run(8), old.tokens)


def test_nothing_is_computed_again(llm, tiny_path, saved):
    """In a new engine: one row for each branch, whose logits were not saved."""
    path, made = saved
    backend = llm.settings["backend"].value
    with LLM(tiny_path, backend=backend, num_threads=1) as other:
        head = other.restore(path)
        found = list(head.branch.root.generation.walk())
        for restored, old in zip(found, made, strict=True):
            assert np.array_equal(restored.peek().logits, old.peek().logits)
            assert restored.cost.computed <= 4  # what was never computed, or the last row for its logits
        del head, found, restored
        other._open_driver().evaluate([])
    with LLM(tiny_path, backend=backend, context_length=96, kv_memory=1 << 18) as small:
        again = small.restore(path)  # too little room for all: the rest is computed
        for restored, old in zip(again.branch.root.generation.walk(), made, strict=True):
            assert np.array_equal(restored.peek().logits, old.peek().logits)


@pytest.mark.parametrize("kv_format", ["f32", "f16", "bf16", "q8_0", "i16"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_file_holds_nothing_of_others(tiny_path, tmp_path, backend, kv_format):
    """The same file whatever the cache held before: a block's last positions may still be somebody else's."""
    files = []
    for before in (0, 3):
        with LLM(tiny_path, backend=backend, kv_format=kv_format, context_length=96, max_sequences=1) as llm:
            for i in range(before):  # more than there are blocks
                llm.generate([i + 3] * 80, max_tokens=5, temperature=1.0, seed=i, ignore_eos=True)
            generation = llm.begin(PROMPT, **PARAMS)
            generation.run(7)
            other = generation.fork()
            other.run(2)
            generation.rewind(3)
            path = tmp_path / f"{before}.session"
            generation.save(path)
            files.append(path.read_bytes())
    assert files[0] == files[1]


def test_without_keys_and_values(llm, saved, tiny_path):
    path, made = saved
    other_backend = "cpu" if llm.settings["backend"].value == "reference" else "reference"
    with LLM(tiny_path, backend=other_backend) as other:
        with pytest.raises(SessionFileError, match="another backend"):
            other.restore(path)
        head = other.restore(path, kv=False)
        assert head.tokens == made[1].tokens and head.cost == (0, 0, 0)
        head.step()
    assert len(llm.restore(path).restored) == 3


def test_only_this(llm, tmp_path):
    made = tree(llm)
    made[2].save(tmp_path / "one", only_this=True)
    one = llm.restore(tmp_path / "one")
    assert one.restored == [] and one.parent is None and one.tokens == made[2].tokens
    (tmp_path / "link").symlink_to(tmp_path / "one")


def test_another_model_tokenizer_or_format_is_refused(tmp_path, tiny_path, tmp_path_factory):
    path = tmp_path / "a.session"
    with LLM(tiny_path) as llm:
        generation = llm.begin(PROMPT, max_tokens=5)
        generation.run()
        generation.save(path)
    with LLM(tiny_path, kv_format="f16") as other, pytest.raises(SessionFileError, match="another KV format"):
        other.restore(path)
    qwen = make(tmp_path_factory.mktemp("other"), "qwen3", "gguf", "F32")
    with LLM(qwen) as other, pytest.raises(SessionFileError, match="another architecture"):
        other.restore(path)
    quantised = make(tmp_path_factory.mktemp("other"), "llama", "gguf", "Q8_0")
    with LLM(quantised) as other, pytest.raises(SessionFileError, match="another model"):
        other.restore(path)
    with pytest.raises(SessionFileError) as caught, LLM(quantised) as other:
        other.restore(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_every_damaged_byte_is_found(llm, saved, tmp_path):
    """Each mutation is refused in one line, or is one that changes nothing (spaces that pad the header)."""
    path, made = saved
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(1)
    places = sorted(
        {*rng.integers(0, len(data), 150).tolist(), *rng.integers(0, header, 250).tolist(), *range(8)}
    )
    broken = tmp_path / "broken"
    for place in places:
        damaged = data.copy()
        damaged[place] ^= 1 << int(rng.integers(8))
        broken.write_bytes(damaged)
        try:
            again = llm.restore(broken)
        except SessionFileError as error:
            assert "\n" not in str(error)
        else:
            assert again.tokens == made[1].tokens and data[place] == 32
    for length in [*range(0, 200, 7), *rng.integers(0, len(data), 40).tolist()]:
        broken.write_bytes(data[:length])
        with pytest.raises(SessionFileError):
            llm.restore(broken)
    broken.write_bytes(data + b"x")
    with pytest.raises(SessionFileError):
        llm.restore(broken)


def values(data, path=()):
    """Every path to a value in JSON data."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from values(value, (*path, key))


def test_a_well_formed_file_that_lies_is_refused_or_harmless(llm, saved, tmp_path):
    """Mutations under a right digest: an error in one line, or a generation that works."""
    path, _ = saved
    file = container.SessionFile(path)
    rng = np.random.default_rng(2)
    text = json.dumps(file.manifest)
    paths = list(values(file.manifest))
    odd = [None, -1, 10**30, "x", [], {}, True, 1.5, "-inf", [None], {"a": 1}]
    broken, refused = tmp_path / "lies", 0
    for _ in range(150):
        manifest = json.loads(text)
        where = paths[int(rng.integers(1, len(paths)))]
        target = manifest
        for key in where[:-1]:
            target = target[key]
        if rng.random() < 0.2:
            del target[where[-1]]
        else:
            target[where[-1]] = odd[int(rng.integers(len(odd)))]
        container.write(broken, manifest, {name: tensor.copy() for name, tensor in file.tensors.items()})
        try:
            again = llm.restore(broken)
        except (SessionFileError, UsageError) as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            if again.finish_reason is None:
                again.step()
    assert refused > 50
    for name in list(file.tensors):
        tensors = {n: t.copy() for n, t in file.tensors.items() if n != name}
        container.write(broken, file.manifest, tensors)
        with pytest.raises(SessionFileError, match="damaged"):
            llm.restore(broken)


def test_a_full_disk_leaves_the_old_file(llm, saved, monkeypatch):
    path, made = saved
    old = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("fsync", "replace"):
        monkeypatch.setattr(container.os, name, full)
        with pytest.raises(SessionFileError, match="No space left on device; what was there is unchanged"):
            made[0].save(path)
        monkeypatch.undo()
        assert path.read_bytes() == old and os.listdir(path.parent) == [path.name]
    with pytest.raises(SessionFileError, match="cannot be written"):
        made[0].save(path / "below" / "a file")
    with pytest.raises(UsageError, match="extra"):
        made[0].save(path, extra={"a": object()})
    made[0].save(path)
    assert path.read_bytes() != old


def test_the_header_is_what_the_format_says(saved):
    path, _ = saved
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(path)
    assert {name.split(".")[0] for name in tensors} == {"kv", "tokens"}
    assert tensors["tokens.0"].dtype == np.int32


CHILD = """
import sys
from pellucid import LLM
llm = LLM(sys.argv[1])
generation = llm.begin("Once upon a time", ignore_eos=True, max_tokens=400)
generation.run(2)
generation.save(sys.argv[2])  # a slow machine may not come to the next one
print("ready", flush=True)
while True:
    generation.save(sys.argv[2])
    generation.step()
"""


@pytest.mark.parametrize("times", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_leaves_a_whole_file(tiny_path, tmp_path, times):
    path = tmp_path / "a.session"
    rng = np.random.default_rng(3)
    lengths = set()
    with LLM(tiny_path) as llm:
        for _ in range(times):
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(tiny_path), str(path)], stdout=subprocess.PIPE
            )
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            time.sleep(float(rng.random()) * 0.1)
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
            if path.exists():
                lengths.add(len(llm.restore(path).tokens))
    assert lengths
