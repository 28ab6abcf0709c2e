import numpy as np
import pytest

from pellucid.errors import ContextOverflowError, UsageError
from pellucid.prompts import check_token_ids, split_prompts


@pytest.mark.parametrize(
    ("given", "prompts", "several"),
    [
        ("text", ["text"], False),
        ("", [""], False),
        ([1, 2], [[1, 2]], False),
        ((3,), [[3]], False),
        (range(3), [[0, 1, 2]], False),
        (np.array([1, 2], np.int64), [[1, 2]], False),
        (np.array([1, 2], np.uint8), [[1, 2]], False),
        ([np.int32(5), 6], [[5, 6]], False),
        (["a"], ["a"], True),
        (["a", [1, 2], np.array([3])], ["a", [1, 2], [3]], True),
        ([[1]], [[1]], True),
        ([[]], [[]], True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]], True),
    ],
)
def test_what_a_prompt_may_be(given, prompts, several):
    found, many = split_prompts(given)
    assert (found, many) == (prompts, several)
    assert all(type(token) is int for prompt in found if isinstance(prompt, list) for token in prompt)


@pytest.mark.parametrize(
    "given",
    [
        [],
        None,
        7,
        1.5,
        b"bytes",
        {"role": "user"},
        [1, 2.0],
        [1, True],
        [True, False],
        ["a", 3],
        [[1, "a"]],
        [[1, 2.5]],
        [None],
        np.array([1.0, 2.0]),
        np.array([True]),
        np.array(3),
        np.zeros((1, 1, 1), int),
    ],
)
def test_what_it_may_not_be(given):
    with pytest.raises(UsageError) as caught:
        split_prompts(given)
    assert "\n" not in str(caught.value)


def test_ids_are_checked_against_vocabulary_and_context():
    check_token_ids([0, 9], 10, 2, 2, None)
    check_token_ids([0, 9], 10, 3, 3, {})
    check_token_ids([1], 10, 4, 4, {"max_tokens": 3})
    with pytest.raises(UsageError, match="empty"):
        check_token_ids([], 10, 5, 5, None)
    with pytest.raises(UsageError, match="token id 10 at position 1 .* 0 to 9"):
        check_token_ids([0, 10], 10, 5, 5, None)
    with pytest.raises(UsageError, match="token id -1 at position 0"):
        check_token_ids([-1, 10], 10, 5, 5, None)
    for following in (None, {}, {"max_tokens": 100}):
        with pytest.raises(ContextOverflowError, match="7 tokens, 2 more than the context of 5") as caught:
            check_token_ids([0] * 7, 10, 5, 5, following)
        assert "raise context_length" not in str(caught.value)
        assert "lower" not in str(caught.value)
    with pytest.raises(ContextOverflowError, match=r"raise context_length \(this model has up to 8\)"):
        check_token_ids([0] * 7, 10, 5, 8, None)
    with pytest.raises(ContextOverflowError, match="one token to generate that is 1 more"):
        check_token_ids([0] * 5, 10, 5, 5, {})
    with pytest.raises(ContextOverflowError, match="max_tokens 4 that is 1 more .* lower max_tokens"):
        check_token_ids([0] * 2, 10, 5, 5, {"min_tokens": 2, "max_tokens": 4})
