"""The mechanism of a generation, told on a live model: what each pass was given, reused, computed, and what came of it.

Nothing here is told from memory: the counts are those of the engine, the choices are made again with their eyes open
(`sampling/record.py`), and at the end the whole text goes through the model once more, with nothing reused, to see
whether every choice was made from the same bits.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any

from pellucid.held.past_rows import choice_at, past_rows
from pellucid.prompts import check_count
from pellucid.sampling.distribution import Distribution
from pellucid.sampling.record import ChoiceRecord

if TYPE_CHECKING:
    from pellucid.held.generation import Generation
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.types import Float32, Int32


@dataclass(frozen=True, slots=True)
class TokenSeen:
    """One token of the input. piece: as the vocabulary writes it; text: what it adds to a text."""

    position: int
    token_id: int
    piece: str
    text: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """A token that may come next: its probability and rank (0: the most probable) under the model, its logit."""

    token_id: int
    text: str
    probability: float
    rank: int
    logit: float


@dataclass(frozen=True, slots=True)
class RowSeen:
    """What one row of a pass predicts for the position after it. follows: the token that stands there in the prompt;
    None for the last row, whose prediction the choice is made from."""

    token: TokenSeen
    top: tuple[Prediction, ...]
    entropy: float  # nats
    follows: Prediction | None


@dataclass(frozen=True, slots=True)
class LayerSeen:
    """What a layer's output would predict, were it the last (the logit lens): its most probable token, and the
    probability and rank of the token that was chosen. name: "embed" before the first layer, then their numbers."""

    name: str
    top_id: int
    top: str
    probability: float
    rank: int


@dataclass(frozen=True, slots=True)
class PassSeen:
    """One turn of the loop. The input has `length` tokens, of which the keys and values of `reused` positions were
    there, and `computed` rows went through the layers. rows: the last of them, those that are told. layers: of the last
    row; the last of them is the model itself. names: texts of the tokens that `choice` speaks of."""

    length: int
    reused: int
    computed: int
    rows: tuple[RowSeen, ...]
    layers: tuple[LayerSeen, ...]
    choice: ChoiceRecord
    names: Mapping[int, str]
    appended: TokenSeen
    text: str
    finish_reason: str | None
    digest: str  # of the row of logits that the choice was made from


@dataclass(frozen=True, slots=True)
class Check:
    """All tokens but the last in one go, nothing reused. same: for each choice, whether its logits have the same
    bits."""

    computed: int
    same: tuple[bool, ...]


@dataclass(frozen=True)
class Explanation:
    """What `explain` tells; `lines(width)` is the text of it, `to_dict()` plain data."""

    model: str
    vocabulary_size: int
    num_layers: int
    windows: tuple[tuple[int, int], ...]  # (layers, positions) of layers that see no further back
    kv_format: str
    kv_bytes: int  # of one position, all layers
    chunk: int  # the most rows of a prompt that one pass computes
    prompt: tuple[TokenSeen, ...]
    greedy: bool
    temperature: float
    seed: int | None
    passes: tuple[PassSeen, ...]
    check: Check

    def lines(self, width: int = 80) -> list[str]:
        """The story, in lines of at most `width` cells (at least 40)."""
        from pellucid.glass.telling import tell

        return tell(self, max(40, width))

    def to_dict(self) -> dict[str, Any]:
        """In plain types; the margin of a choice that nothing else was left for is infinite."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def explain(
    llm: LLM,
    prompt: str | Sequence[int] | Sequence[Mapping[str, Any]],
    params: SamplingParams | None = None,
    *,
    max_tokens: int = 3,
    top: int = 3,
    rows: int = 16,
    on_turn: Callable[[Explanation], None] | None = None,
    **overrides: Any,
) -> Explanation:
    """Generates up to max_tokens tokens and tells how.

    prompt, params, overrides: as of `LLM.begin`. top: predictions told of a row. rows: rows of the prompt told, the
    last ones. on_turn: called with what there is so far, before the first turn and after each; the check is empty
    then. Costs the generation, those rows, the lens at each choice, and one more pass over everything (the check).
    Errors: those of `LLM.begin`; UsageError (a number out of range).
    """
    for name, value in (("max_tokens", max_tokens), ("top", top), ("rows", rows)):
        check_count(name, value, 1)
    on_turn = on_turn or (lambda so_far: None)
    with llm.begin(prompt, params, max_tokens=max_tokens, **overrides) as generation:
        told = _beginning(llm, generation)
        on_turn(told)
        while generation.finish_reason is None:
            told = dataclasses.replace(told, passes=(*told.passes, _pass(llm, generation, top, rows)))
            on_turn(told)
        digests = [each.digest for each in told.passes]
        return dataclasses.replace(told, check=_check(llm, generation, len(told.prompt), digests))


def _beginning(llm: LLM, generation: Generation) -> Explanation:
    """What is known before the first turn."""
    info, chosen = llm.info, generation.params
    windows = sorted({layer.window for layer in info.layers if layer.window is not None})
    kv_format = str(llm.settings["kv_format"].value)
    return Explanation(
        model=info.name,
        vocabulary_size=info.vocabulary_size,
        num_layers=len(info.layers),
        windows=tuple((sum(layer.window == each for layer in info.layers), each) for each in windows),
        kv_format=kv_format,
        kv_bytes=info.kv_bytes(1, kv_format),
        chunk=int(llm.settings["prefill_chunk"].value),
        prompt=tuple(_token(llm, at, token_id) for at, token_id in enumerate(generation.prompt_tokens)),
        greedy=chosen.greedy,
        temperature=chosen.temperature,
        seed=chosen.seed,
        passes=(),
        check=Check(0, ()),
    )


def _token(llm: LLM, position: int, token_id: int) -> TokenSeen:
    tokenizer = llm.tokenizer
    return TokenSeen(position, token_id, tokenizer.piece(token_id), tokenizer.token_text(token_id))


def _pass(llm: LLM, generation: Generation, top: int, most_rows: int) -> PassSeen:
    """The next turn of the loop; the generation has one token more afterwards."""
    before = generation.cost
    step = generation.peek()
    computed = generation.cost.computed - before.computed
    length = len(generation)
    ids = generation.token_array.tolist()
    rows: list[RowSeen] = []

    def take(position: int, row: Float32) -> None:
        token = _token(llm, position - 1, ids[position - 1])
        rows.append(_row(llm, token, row, ids[position] if position < length else None, top))

    first = length - min(most_rows, max(1, computed)) + 1
    if first < length:
        past_rows(generation, first, length, take)
    take(length, step.logits)
    choice = choice_at(generation, length, step.logits)
    digest = _digest(step.logits)
    step.choose()
    return PassSeen(
        length=length,
        reused=length - computed,
        computed=computed,
        rows=tuple(rows),
        layers=_layers(llm, ids, choice.token_id),
        choice=choice,
        names={each: llm.tokenizer.token_text(each) for each in choice.named_ids},
        appended=_token(llm, length, choice.token_id),
        text=(generation.prompt or "") + generation.text,
        finish_reason=generation.finish_reason,
        digest=digest,
    )


def _layers(llm: LLM, ids: list[int], token_id: int) -> tuple[LayerSeen, ...]:
    """After these tokens; token_id: the one that was chosen."""
    lens = llm.lens(ids, positions=[len(ids) - 1], k=1, tokens=[token_id])
    return tuple(
        LayerSeen(
            name,
            int(lens.top_ids[0, at, 0]),
            llm.tokenizer.token_text(int(lens.top_ids[0, at, 0])),
            exp(min(0.0, float(lens.logprobs[0, at]))),
            int(lens.ranks[0, at]),
        )
        for at, name in enumerate(lens.layers)
    )


def _row(llm: LLM, token: TokenSeen, row: Float32, follows: int | None, top: int) -> RowSeen:
    distribution = Distribution(row)

    def prediction(token_id: int, rank: int) -> Prediction:
        text = llm.tokenizer.token_text(token_id)
        return Prediction(token_id, text, distribution.probability(token_id), rank, float(row[token_id]))

    return RowSeen(
        token,
        tuple(prediction(token_id, rank) for rank, token_id in enumerate(distribution.top(top))),
        distribution.entropy,
        None if follows is None else prediction(follows, distribution.rank(follows)),
    )


def _check(llm: LLM, generation: Generation, num_prompt: int, digests: list[str]) -> Check:
    """Everything again, apart from what the cache has."""
    ids = generation.token_array[:-1].tolist()
    found: list[str] = []
    with llm.begin(ids, cache_salt=f"check {_digest(generation.token_array)}") as fresh:
        cost = past_rows(fresh, num_prompt, len(ids) + 1, lambda _, row: found.append(_digest(row)))
    return Check(cost.computed, tuple(a == b for a, b in zip(digests, found, strict=True)))


def _digest(row: Float32 | Int32) -> str:
    """Of its bits: 8 bytes in hexadecimal."""
    return hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest()
