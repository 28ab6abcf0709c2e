"""Texts to the token ids that are scored: the boundary between context and continuation, and rolling windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pellucid.errors import UsageError
from pellucid.prompts import split_prompts

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

BOUNDARIES = ("joint", "harness")


class Encoded(NamedTuple):
    """merged: a token lies across the boundary."""

    context: list[int]
    continuation: list[int]
    merged: bool


def prefix_id(tokenizer: Tokenizer) -> int:
    """What stands before a text without context: BOS, or else the least of the end tokens."""
    if tokenizer.bos_id is not None:
        return tokenizer.bos_id
    if tokenizer.eos_ids:
        return min(tokenizer.eos_ids)
    raise UsageError(
        "an empty context needs a BOS or end token, and this vocabulary has neither; give a context"
    )


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str, boundary: str) -> Encoded:
    """The ids of both, encoded as one text and cut, as lm-evaluation-harness does it.

    Spaces at the end of the context go to the continuation first. boundary "harness": the cut is at the length
    of the context encoded alone, whatever the tokens there are; of a context of spaces alone nothing is left (the
    harness's own models fail there). "joint": the cut is where the two encodings part, so that a token across the
    boundary is scored whole, and a context of spaces alone stays. UsageError: nothing is left to score.
    """
    stripped = context.rstrip()
    if stripped or boundary == "harness":  # else a context of spaces alone stays
        context, continuation = stripped, context[len(stripped) :] + continuation
    if context == "":
        ids = tokenizer.encode(continuation, add_bos=False)
        return Encoded([prefix_id(tokenizer)], _some(ids, continuation), False)
    alone, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    same = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), None)
    cut = min(len(alone), len(whole)) if same is None else same
    merged = cut < len(alone)
    if boundary == "harness":
        return Encoded(alone, _some(whole[len(alone) :], continuation), merged)
    if cut == 0:
        return Encoded([prefix_id(tokenizer)], _some(whole, continuation), merged)
    return Encoded(whole[:cut], _some(whole[cut:], continuation), merged)


def encode_all(
    tokenizer: Tokenizer,
    context: str | Sequence[int],
    continuations: Sequence[str | Sequence[int]],
    boundary: str,
) -> list[Encoded]:
    """Each continuation after the context; texts, or ids all of them. Errors: UsageError."""
    if isinstance(continuations, str) or len(continuations) == 0:
        raise UsageError(f"expected a list of continuations, got {continuations!r:.40}")
    encoded = []
    for where, each in enumerate(continuations):
        if not isinstance(each, Sequence) or len(each) == 0:
            raise UsageError(f"continuation {where} is empty; give at least one token or character")
        if isinstance(each, str) and isinstance(context, str):
            encoded.append(encode_pair(tokenizer, context, each, boundary))
        elif isinstance(each, str) or (isinstance(context, str) and context):
            raise UsageError(f"continuation {where}: context and continuation must both be text, or both ids")
        else:
            ids = id_list(context) if len(context) else [prefix_id(tokenizer)]
            encoded.append(Encoded(ids, id_list(each), False))
    return encoded


def id_list(given: object) -> list[int]:
    """One sequence of token ids. UsageError: something else."""
    prompts, several = split_prompts(given)
    if several or isinstance(prompts[0], str):
        raise UsageError("expected one sequence of token ids")
    return prompts[0]


def _some(ids: list[int], text: str) -> list[int]:
    if not ids:
        raise UsageError(
            f"the continuation {text!r:.40} has no token of its own after the context; "
            'use boundary="joint", or move text between the two'
        )
    return ids


def rolling_windows(
    ids: Sequence[int], prefix: int, window: int, stride: int
) -> Iterator[tuple[list[int], list[int]]]:
    """(context, predicted tokens), each token predicted once; context and prediction but its last token are at
    most `window` long. Every window after the first predicts up to `stride` tokens. stride = window is what
    lm-evaluation-harness does (context_len 1)."""
    done = min(window, len(ids))
    if ids:
        yield [prefix], list(ids[:done])
    while done < len(ids):
        end = min(len(ids), done + stride)
        yield list(ids[max(0, end - window - 1) : done]), list(ids[done:end])
        done = end
