"""Scores against plain `llm.logits`, string probabilities against enumeration, windows against their definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pellucid import LLM, _native
from pellucid.errors import ContextOverflowError, UsageError
from pellucid.scoring.encode import encode_pair, rolling_windows


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    from tiny_checkpoints import make

    path = make(tmp_path_factory.mktemp("scoring"), "llama", "gguf", "F32")
    with LLM(path, num_threads=2, prefill_chunk=7) as loaded:
        yield loaded


def alone(llm, context, ids):
    """The same from one run of the whole sequence, without a trie."""
    rows = llm.logits([*context, *ids])[len(context) - 1 : -1]
    greedy = bool((rows.argmax(1) == ids).all())
    values = tuple(float(row[i]) - _native.log_normalizer(row) for row, i in zip(rows, ids, strict=True))
    wide = rows.astype(np.float64)
    plain = wide[range(len(ids)), ids] - np.log(np.exp(wide).sum(1))
    assert values == pytest.approx(plain, abs=1e-12)
    return values, greedy


def test_trie_equals_separate_runs_bit_for_bit(llm):
    rng = np.random.default_rng(3)
    context = rng.integers(2, 320, 41).tolist()
    stem = rng.integers(2, 320, 9).tolist()
    best = int(llm.logits(context)[-1].argmax())
    some = [stem, stem[:1], [*stem[:4], 5, 6], [*stem[:4], 5, 7], [best], [9, 9, 9], stem]
    scores = llm.score(context, some)
    for score, ids in zip(scores, some, strict=True):
        assert (score.logprobs, score.greedy) == alone(llm, context, ids)
        assert score.num_context == 41 and score.token_ids == tuple(ids)
    assert scores[4].greedy and not scores[5].greedy
    order = rng.permutation(len(some)).tolist()
    assert list(llm.score(context, [some[i] for i in order])) == [scores[i] for i in order]
    assert llm._loaded.engine.pool.num_used == 0


def test_rows_are_computed_once(tmp_path):
    from tiny_checkpoints import make

    path = make(tmp_path, "llama", "gguf", "F32")
    with LLM(path, prefix_caching=False) as llm:
        scores = llm.score([5] * 20, [[7, 8, 9, 10], [7, 8, 9, 11], [7, 8, 12], [13]])
        assert scores.num_computed == 20 + 3  # 7, 8, 9: the leaves are only looked up
        assert scores.num_reused == 23 + 23 + 22 + 20 - 23


def test_contexts_stay_in_the_cache_and_branches_do_not(tmp_path):
    from tiny_checkpoints import make

    context = [5] * 69
    with LLM(make(tmp_path, "llama", "gguf", "F32")) as llm:
        first = llm.score(context, [[7, 8, 9], [7, 8, 10], [11] * 70])
        pool = llm._loaded.engine.pool
        assert (first.num_computed, pool.num_cached, pool.num_used) == (69 + 2 + 69, 3, 0)  # blocks of 32
        again = llm.score(context, [[7, 8, 9], [7, 8, 10], [11] * 70])
        assert again == first and again.num_computed == 1 + 2 + 69


def test_many_items_equal_each_alone_bit_for_bit(llm):
    rng = np.random.default_rng(4)
    shared = rng.integers(2, 320, 11).tolist()
    items = [(rng.integers(2, 320, n).tolist(), rng.integers(2, 320, (3, n)).tolist()) for n in range(1, 60)]
    items += [(shared, [[i % 7, i], [i]]) for i in range(2, 90)]  # one context, many items
    some = [items[i] for i in rng.permutation(len(items))]
    read = []

    def source():
        for index, item in enumerate(some):
            read.append(index)
            yield item

    found = []
    for scores in llm.score_many(source(), unconditional=[5]):
        found.append(scores)
        assert len(read) - len(found) < 128
    for (context, continuations), scores in zip(some, found, strict=True):
        without = [line for ids in continuations for line in llm.score([5], [ids])]
        alone_scores = [each for ids in continuations for each in llm.score(context, [ids])]
        assert [s.logprobs for s in scores] == [s.logprobs for s in alone_scores]
        assert [s.unconditional for s in scores] == [s.logprob for s in without]
        assert [s.greedy for s in scores] == [s.greedy for s in alone_scores]
    assert llm._loaded.engine.pool.num_used == 0


def test_many_items_with_little_memory(tmp_path):
    """Tries of more positions than the cache holds take turns; nothing changes."""
    from tiny_checkpoints import make

    path = make(tmp_path, "llama", "gguf", "F32")
    rng = np.random.default_rng(5)
    items = [(rng.integers(2, 320, 50).tolist(), rng.integers(2, 320, (4, 30)).tolist()) for _ in range(12)]
    with LLM(path) as roomy:
        wanted = list(roomy.score_many(items))
        per_token = roomy._loaded.capacity.bytes_per_token
    with LLM(path, context_length=128, kv_memory=160 * per_token, prefill_chunk=32) as narrow:
        assert list(narrow.score_many(items)) == wanted


def test_an_error_of_many_names_its_item(llm):
    items = [("a", [" b"]), ("a", [" b", ""]), ("a", [" c"])]
    found = llm.score_many(iter(items))
    assert next(found) == llm.score("a", [" b"])
    with pytest.raises(UsageError, match="item 1: continuation 1 is empty"):
        next(found)
    with pytest.raises(UsageError, match="expected a pair"):
        list(llm.score_many(["ab"]))
    with pytest.raises(UsageError, match="boundary"):
        llm.score_many([], boundary="near")


def test_normalisations_and_rank(llm):
    texts = [" the", " a cat", " é"]
    scores = llm.score("One day ", texts, unconditional="")
    base = llm.score("", texts)
    for score, without, text in zip(scores, base, texts, strict=True):
        assert score.logprob == sum(score.logprobs)
        assert score.per_character == score.logprob / len(text)
        assert score.per_byte == score.logprob / len(text.encode())
        assert score.pmi == score.logprob - without.logprob
    for by in ("logprob", "per_token", "per_character", "per_byte", "pmi"):
        got = llm.rank("One day ", texts, by=by, unconditional="")
        values = [getattr(scores[i], by) for i in got]
        assert values == sorted(values, reverse=True) and sorted(got) == [0, 1, 2]


def test_trailing_space_moves_and_tokens_merge(llm):
    tokenizer = llm.tokenizer
    context, ids, merged = encode_pair(tokenizer, "so  ", "be", "harness")
    whole = tokenizer.encode("so  be")
    assert context == tokenizer.encode("so") and context + ids == whole and not merged
    a, b = next(
        (a, b) for a, b in itertools.product("abcdefgh", repeat=2) if len(tokenizer.encode(a + b)) == 1
    )
    context, ids, merged = encode_pair(tokenizer, "é" + a, b, "joint")
    assert (
        merged and context + ids == tokenizer.encode("é" + a + b) and tokenizer.join(ids).endswith(b.encode())
    )
    with pytest.raises(UsageError, match="no token of its own"):
        llm.score("é" + a, [b], boundary="harness")
    assert llm.score("é" + a, [b])[0].merged


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(1, 4, 4), (4, 4, 4), (5, 4, 4), (23, 5, 5), (23, 5, 2)]
)
def test_windows_predict_each_token_once(length, window, stride):
    ids = list(range(100, 100 + length))
    windows = list(rolling_windows(ids, 0, window, stride))
    assert [token for _, after in windows for token in after] == ids
    padded = [0, *ids]
    at = 1
    for context, after in windows:
        assert context == padded[at - len(context) : at] and len(context) + len(after) - 1 <= window
        if at > 1:
            assert len(after) <= stride and len(context) + len(after) - 1 == window
        at += len(after)


def test_perplexity_is_the_mean_of_plain_rows(llm):
    text = "It was a bright cold day in April.\nThe clocks were striking thirteen."
    ids = llm.tokenizer.encode(text, add_bos=False)
    got = llm.perplexity(text)
    values, _ = alone(llm, [0], ids)
    assert got.logprob == math.fsum(values) and got.num_windows == 1
    assert got.perplexity == math.exp(-got.logprob / len(ids))
    assert got.bits_per_byte == -got.logprob / len(text.encode()) / math.log(2)
    strided = llm.perplexity(text, window=10, stride=3)
    windows = rolling_windows(ids, 0, 10, 3)
    assert strided.logprob == math.fsum(v for c, after in windows for v in alone(llm, c, after)[0])


def brute(llm, context, data, done=b""):
    """The sum over all token sequences whose bytes begin with data, by plain recursion over the vocabulary."""
    row = llm.logits(context)[-1].astype(np.float64)
    chances = np.exp(row - row.max())
    chances /= chances.sum()
    total = 0.0
    for token in range(2, 320):
        spelled = done + llm.tokenizer.token_bytes(token)
        if spelled.startswith(data):
            total += chances[token]
        elif data.startswith(spelled):
            total += chances[token] * brute(llm, [*context, token], data, spelled)
    return total


@pytest.mark.parametrize("string", ["a", "ab", " cab", "abcd", "é"])
def test_string_probability_equals_enumeration(llm, string):
    context = llm.tokenizer.encode("hello")
    got = llm.string_probability("hello", string)
    truth = brute(llm, context, string.encode())
    assert got.exact and got.lower == got.upper == pytest.approx(truth, rel=1e-9)
    for budget in range(1, got.num_nodes):
        pruned = llm.string_probability("hello", string, max_nodes=budget)
        assert not pruned.exact and pruned.num_nodes == budget
        assert pruned.lower <= truth * (1 + 1e-9) and truth <= pruned.upper * (1 + 1e-9)
    assert llm._loaded.engine.pool.num_used == 0


def test_chain_rule_over_bytes(llm):
    """P(s) is the sum over the next byte, and over the outputs whose text goes no further."""
    one = llm.string_probability("hello", "c").lower
    following = sum(llm.string_probability("hello", b"c" + bytes([b])).lower for b in range(256))
    ids = llm.tokenizer.encode("hello")
    (c,) = llm.tokenizer.encode("c", add_bos=False)
    ends = [[c, control] for control in (0, 1)]  # "c" is spelled in one way only, then a control token
    ended = sum(math.exp(score.logprob) for score in llm.score(ids, ends))
    assert following + ended == pytest.approx(one, rel=1e-9)


def test_errors(llm):
    for context, continuations, words in (
        ("a", [], "list of continuations"),
        ("a", "b", "list of continuations"),
        ("a", ["b", ""], "continuation 1 is empty"),
        ("a", [[5]], "both be text"),
        ([5], ["b"], "both be text"),
        ([5], [[400]], "outside the vocabulary"),
    ):
        with pytest.raises(UsageError, match=words):
            llm.score(context, continuations)
    with pytest.raises(UsageError, match="boundary"):
        llm.score("a", ["b"], boundary="near")
    with pytest.raises(UsageError, match="pmi"):
        llm.rank("a", ["b"], by="pmi")
    with pytest.raises(UsageError, match="stride"):
        llm.perplexity("a b", window=4, stride=5)
    long = [5] * llm.context_length
    with pytest.raises(ContextOverflowError, match="1 tokens more"):
        llm.score(long, [[6, 7]])
    (cut,) = llm.score(long, [[6, 7]], truncate=True)
    assert cut.num_dropped == 1 and cut.logprobs == alone_cut(llm, long[1:])


def alone_cut(llm, context):
    return llm.score(context, [[6, 7]])[0].logprobs
