"""Breakers that are texts: every sequence of tokens that can bring them."""

from __future__ import annotations

import threading
from itertools import product

import numpy as np
import pytest
from toy_vocabulary import ToyVocabulary

from pellucid import LLM, SamplingParams, UsageError
from pellucid.sampling.dry import Dry
from pellucid.text.breakers import breaker_sequences


def test_by_hand():
    vocabulary = ToyVocabulary("a", "b", "c", "ab", "xab", "abx", "xa", "bc", "\n", ".\n\n")
    number = {piece.decode(): i for i, piece in enumerate(vocabulary.pieces)}
    assert set(breaker_sequences(vocabulary, ["\n"])) == {(number["\n"],), (number[".\n\n"],)}
    assert set(breaker_sequences(vocabulary, ["ab"])) == {
        *((number[piece],) for piece in ("ab", "xab", "abx")),
        *((number[piece], number["b"]) for piece in ("a", "xa")),
    }
    assert set(breaker_sequences(vocabulary, ["abc"])) == {
        *((number[piece], number["c"]) for piece in ("ab", "xab")),
        *((number[piece], number["bc"]) for piece in ("a", "xa")),  # the rest as the tokenizer encodes it
    }
    assert breaker_sequences(vocabulary, ["zz"]) == ()
    assert vocabulary.token_bytes(vocabulary.end) == b"<end>"
    assert breaker_sequences(vocabulary, ["<end>", ">a"]) == (), "a control token brings no text"


def test_no_repetition_reaches_back_over_a_text():
    """Of every window of a small vocabulary: what may repeat begins after the last token with a character of the last
    breaker, if it is one token or is spelled as the tokenizer spells it."""
    vocabulary = ToyVocabulary("a", "b", "a;", ";", "b;b")
    dry = Dry(dry_multiplier=1.0, dry_breakers=(";",), spelled=breaker_sequences(vocabulary, [";"]))
    pieces = [piece.decode() for piece in vocabulary.pieces]
    for window in product(range(5), repeat=4):
        after = next((n for n in range(4) if ";" in pieces[window[3 - n]]), 4)
        assert dry.longest(np.array(window, np.int32)) == after


@pytest.fixture(scope="module")
def model(tiny):
    with LLM(tiny, num_threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from tiny_checkpoints import make

    return make(tmp_path_factory.mktemp("breakers"), "llama", "gguf", "F32")


def test_texts_act_as_their_ids_do(model):
    texts = ["\x02", "lo"]  # both come in what this model generates
    sequences = breaker_sequences(model.tokenizer, texts)
    arguments = {"dry_multiplier": 3.0, "dry_allowed_length": 1, "max_tokens": 40, "ignore_eos": True}
    prompt = "the theme of the tether, the theme of the tether, the"
    by_ids = model.generate(prompt, dry_breakers=[list(each) for each in sequences], **arguments)
    by_texts = model.generate(prompt, dry_breakers=texts, **arguments)
    assert by_texts.token_ids == by_ids.token_ids
    assert by_texts.settings["dry_breakers"].value == texts
    assert model.generate(prompt, **arguments).token_ids != by_ids.token_ids
    generation = model.begin(prompt, dry_breakers=texts, **arguments)
    generation.run()
    assert generation.tokens == by_ids.token_ids


class Gate(str):
    """A text at which one thread stops, each time that it is looked up, until others have run."""

    def __hash__(self):
        if threading.current_thread() is self.whose:
            self.others()
        return str.__hash__(self)


def test_more_lists_than_are_kept_from_several_threads(model, monkeypatch):
    """Wherever a thread is stopped, looking up or spelling, others bring more lists than are kept: each thread gets
    its own, and no error."""
    lists = [(chr(ord("a") + i), "lo") for i in range(20)]
    expected = [breaker_sequences(model.tokenizer, texts) for texts in lists]
    gate, found, stops = Gate("the"), [], []

    def spell_the_others():
        found.append([model._spelled(texts) for texts in lists])

    def others():
        stops.append(len(stops))
        other = threading.Thread(target=spell_the_others)
        other.start()
        other.join(timeout=600)
        assert not other.is_alive(), "a thread that was stopped kept others waiting"

    def spelled(tokenizer, texts):
        if threading.current_thread() is gate.whose:
            others()
        return breaker_sequences(tokenizer, texts)

    def stopped():
        gate.whose = threading.current_thread()
        found.append(model._spelled((gate, "lo")))

    gate.whose, gate.others = None, others
    monkeypatch.setattr("pellucid.text.breakers.breaker_sequences", spelled)
    thread = threading.Thread(target=stopped)
    thread.start()
    thread.join(timeout=1200)
    assert not thread.is_alive() and len(stops) >= 2
    assert len(found) == len(stops) + 1 and found.pop() == breaker_sequences(model.tokenizer, ("the", "lo"))
    assert all(each == expected for each in found)


def test_a_closed_model_spells_nothing(tiny):
    with LLM(tiny, num_threads=1) as closed:
        assert closed._spelled(("lo",))
    with pytest.raises(UsageError, match="closed"):
        closed._spelled(("lo",))


def test_llamacpp_breaks_at_its_own_texts_unless_told(model):
    assert SamplingParams(order="llamacpp").dry_breakers == ("\n", ":", '"', "*")
    assert SamplingParams(order="llamacpp", dry_breakers=[]).dry_breakers == ()
    model.generate("a:b:a:b", order="llamacpp", dry_multiplier=1.0, max_tokens=2)


def test_texts_without_a_vocabulary_are_refused(model):
    with pytest.raises(UsageError, match="give these parameters to an LLM"):
        Dry(dry_multiplier=1.0, dry_breakers=("x",)).longest(np.array([1], np.int32))
    for wrong in ("", ["a", ""], [3], [[-1]], 5):
        with pytest.raises(UsageError, match="dry_breakers: expected"):
            SamplingParams(dry_breakers=wrong)
