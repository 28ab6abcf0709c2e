"""What a caller may give as a prompt, checked once: text, token ids, or a list of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import Any, TypeAlias

from pellucid.errors import ContextOverflowError, UsageError
from pellucid.sampling.values import as_int

Prompt: TypeAlias = str | Sequence[int]
"""Text, or token ids: a list or tuple of ints, or a one-dimensional integer array."""


def split_prompts(prompts: Any) -> tuple[list[str | list[int]], bool]:
    """(the prompts, each a text or a list of ints; whether several were given). UsageError: neither."""
    if isinstance(prompts, str):
        return [prompts], False
    items = _as_list(prompts)
    if not items:
        raise UsageError("the prompt is empty: give text, at least one token id, or a list of prompts")
    if all(_is_id(item) for item in items):
        return [[index(item) for item in items]], False
    return [_one(item, where) for where, item in enumerate(items)], True


def _one(item: Any, where: int) -> str | list[int]:
    if isinstance(item, str):
        return item
    if _is_id(item):
        raise UsageError(
            f"prompt {where} is a lone token id among other prompts; give it as a list: [{item}]"
        )
    ids = _as_list(item, f"prompt {where}")
    for position, token in enumerate(ids):
        if not _is_id(token):
            raise UsageError(
                f"prompt {where}: expected token ids (int), got {_kind(token)} at position {position}"
            )
    return [index(token) for token in ids]


def _as_list(value: Any, what: str = "prompt") -> list[Any]:
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # a NumPy array, without importing NumPy for it
        if value.dtype.kind not in "iu":
            raise UsageError(f"{what}: token ids must be an integer array, got dtype {value.dtype}")
        if value.ndim not in (1, 2):
            raise UsageError(f"{what}: token ids must be an array of 1 or 2 dimensions, got {value.ndim}")
        listed: list[Any] = value.tolist()
        return listed
    if isinstance(value, list | tuple | range):
        return list(value)
    raise UsageError(f"{what}: expected text, token ids or a list of either, got {_kind(value)}")


def _is_id(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if hasattr(value, "dtype"):  # a NumPy scalar (its bool_ is of kind "b")
        return value.ndim == 0 and value.dtype.kind in "iu"
    return isinstance(value, int)


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.40}"


def check_flag(name: str, value: Any) -> None:
    """UsageError: it is neither True nor False."""
    if not isinstance(value, bool):
        raise UsageError(f"{name}: expected True or False, got {_kind(value)}")


def check_count(name: str, value: Any, least: int) -> int:
    """UsageError: not an int (of any type, NumPy's too) of at least this."""
    count = as_int(value)
    if count is None or count < least:
        raise UsageError(f"{name}: expected an int of at least {least}, got {value!r:.40}")
    return count


def check_salt(salt: Any) -> str | None:
    """UsageError: neither a text nor None."""
    if salt is not None and not isinstance(salt, str):
        raise UsageError(f"cache_salt: expected a text or None, got {_kind(salt)}")
    return salt


def is_messages(prompt: Any) -> bool:
    """Whether this is a chat: a list of mappings, at least one."""
    return (
        isinstance(prompt, list | tuple)
        and len(prompt) > 0
        and all(isinstance(item, Mapping) for item in prompt)
    )


def check_template_variables(variables: Any) -> Mapping[str, Any]:
    """Further variables of a chat template, none: {}. UsageError: no mapping, or a name that is taken."""
    if variables is None:
        return {}
    if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
        raise UsageError(
            f"template_variables: expected a mapping of names (str) to values, got {_kind(variables)}"
        )
    taken = sorted({"messages", "self", "tokenizer"} & set(variables))
    if taken:
        raise UsageError(f"template_variables: '{taken[0]}' is set by pellucid; choose another name")
    return variables


def check_vocabulary(ids: Sequence[int], vocabulary_size: int) -> None:
    """UsageError: no ids, or one outside the vocabulary."""
    if not ids:
        raise UsageError(
            "the prompt is empty: there is no token to continue from (this tokenizer adds no "
            "beginning-of-sequence token); give some text or at least one token id"
        )
    low, high = min(ids), max(ids)
    if low < 0 or high >= vocabulary_size:
        wrong = low if low < 0 else high
        raise UsageError(
            f"token id {wrong} at position {list(ids).index(wrong)} is outside the vocabulary: "
            f"expected 0 to {vocabulary_size - 1}"
        )


def check_token_ids(
    ids: Sequence[int],
    vocabulary_size: int,
    context_length: int,
    longest: int,
    following: Mapping[str, int] | None,
    name_of: Callable[[str], str] = str,
) -> None:
    """Whether these ids can be run.

    following: how many tokens must fit after them, by the name of the parameter that asks for it; None: none
    (for logits). longest: the context that the model can have.
    name_of: what the caller calls a parameter, for messages.
    UsageError: no ids, or one outside the vocabulary. ContextOverflowError: they, or they and what follows,
    are longer than the context; says by how much.
    """
    check_vocabulary(ids, vocabulary_size)
    what, room = "", 0
    for name, number in {"one token to generate": 1, **following}.items() if following is not None else ():
        if number > room:
            what, room = name if number == 1 else f"{name_of(name)} {number}", number
    excess = len(ids) + room - context_length
    if excess > 0:
        prompt = f"the prompt has {len(ids)} tokens"
        if len(ids) <= context_length:
            prompt += f"; with {what} that is"
        else:
            prompt, excess = prompt + ",", len(ids) - context_length
        lower = f", lower {what.split()[0]}" if len(ids) <= context_length and room > 1 else ""
        more = (
            f" or raise {name_of('context_length')} (this model has up to {longest})"
            if longest > context_length
            else ""
        )
        raise ContextOverflowError(
            f"{prompt} {excess} more than the context of {context_length} holds; "
            f"shorten the prompt{lower}{more}"
        )
