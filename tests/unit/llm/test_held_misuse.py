"""What a program may do wrong with a generation in its hand, and with the files it is kept in."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest

from pellucid import SamplingParams
from pellucid.errors import ChatFileError, SessionFileError, UsageError
from pellucid.paths import as_path, check_replaceable

PROMPT = [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.rewind("a"), "rewind: expected an int, got 'a'"),
        (lambda g: g.rewind(1.0), "rewind: expected an int, got 1.0"),
        (lambda g: g.rewind(True), "rewind: expected an int, got True"),
        (lambda g: g.rewind(to=None, n=-1), "rewind: expected to stay with 1 to 4 tokens, got 5"),
        (lambda g: g.edit(None, 5), "edit: expected a position from 0 to 3, got None"),
        (lambda g: g.edit(True, 5), "edit: expected a position from 0 to 3, got True"),
        (lambda g: g.run(until=True), "run: expected a number of tokens"),
        (lambda g: g.configure(5), "params: expected SamplingParams, got int"),
        (lambda g: setattr(g, "params", {}), "params: expected SamplingParams, got dict"),
        (lambda g: g.fork(3), "params: expected SamplingParams, got int"),
        (lambda g: g.parts_from(3), "parts_from: expected a Generation, got int"),
        (lambda g: g.save(None), "save: expected a path, got NoneType"),
        (lambda g: g.save(3), "save: expected a path, got int"),
        (lambda g: g.peek().top(True), "top: expected an int of at least 1"),
        (lambda g: g.peek().set_logits("a"), "logits: expected an array of floats, got str"),
        (lambda g: g.peek().bias(None), "bias: expected a dict of tokens and numbers, got NoneType"),
        (lambda g: g.peek().bias({5: "1"}), "bias of 5: expected a number, got '1'"),
    ],
)
def test_misuse_of_a_generation(llm, call, message):
    with llm.begin(PROMPT, max_tokens=4) as generation:
        with pytest.raises(UsageError) as caught:
            call(generation)
        assert message in str(caught.value)
        assert generation.prompt_tokens == PROMPT
        assert generation.run() == llm.generate(PROMPT, max_tokens=4).text  # nothing was changed


def test_integers_of_numpy_in_a_generation(llm):
    plain, numpy = (
        llm.begin(PROMPT, max_tokens=4),
        llm.begin(np.array(PROMPT, np.int16), max_tokens=np.int8(4)),
    )
    for generation, integer in ((plain, int), (numpy, np.int64)):
        generation.run(until=integer(3))
        generation.rewind(integer(1)).rewind(to=integer(5)).edit(integer(1), integer(9))
        assert len(generation.peek().top(integer(2))) == 2
    assert plain.tokens == numpy.tokens
    assert plain.run() == numpy.run()
    assert (
        plain.configure(SamplingParams(max_tokens=5)).run() == numpy.configure(max_tokens=np.int64(5)).run()
    )


@pytest.mark.parametrize("path", [None, 5, "", [], b"x"])
def test_what_is_no_path(llm, path):
    for restore in (llm.restore, llm.restore_chat):
        with pytest.raises(UsageError, match="expected a path, got"):
            restore(path)


def test_a_generation_of_which_nothing_is_computed_is_saved(llm, tmp_path):
    llm.begin(PROMPT, max_tokens=4).save(tmp_path / "fresh.session")
    again = llm.restore(tmp_path / "fresh.session")
    assert (again.prompt_tokens, again.tokens) == (PROMPT, [])
    assert again.run() == llm.generate(PROMPT, max_tokens=4).text


def test_a_save_replaces_nothing_but_a_file(llm, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    generation = llm.begin(PROMPT, max_tokens=4)
    with pytest.raises(SessionFileError, match="no regular file; what was there is unchanged"):
        generation.save(pipe)
    with pytest.raises(SessionFileError, match="Is a directory"):
        generation.save(tmp_path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
    with pytest.raises(OSError, match="no regular file"):
        check_replaceable(as_path("save", "/dev/full"))


def test_a_conversation_replaces_nothing_but_a_file(models, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ChatFileError, match="no regular file; what was there is unchanged"):
        models("chatml").chat_session().save(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
