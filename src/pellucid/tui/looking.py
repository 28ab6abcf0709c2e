"""Makes the data of a view from a debugger: the text with its probabilities, the distribution at the cursor, the choice
that the present settings make there, the branches; and, apart from these because it costs a pass, the layers."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING

from pellucid.errors import PellucidError
from pellucid.glass.words import cut
from pellucid.held.past_rows import choice_at, processed_at
from pellucid.sampling.distribution import Distribution
from pellucid.tui.view import PROMPT, BranchRow, Cell, LayerRow, Layers, Look, Row, View

if TYPE_CHECKING:
    from pellucid.held.generation import Generation
    from pellucid.llm import LLM
    from pellucid.sampling.record import ChoiceRecord
    from pellucid.tui.debugger import Debugger
    from pellucid.types import Float32

MOST_ROWS = 40  # tokens of a distribution that can be shown and chosen by hand
MOST_VALUE = 30  # cells of a setting's value
TAIL = 40  # characters of a branch's end


def make_view(debugger: Debugger) -> View:
    """Computes the row at the cursor if it is not kept. Errors: PellucidError."""
    generation, probabilities = debugger.generation, debugger.probabilities
    kinds = _kinds(generation)
    look = _look(debugger, kinds) if debugger.cursor > 0 else None  # the first pass, if there was none
    probabilities.follow(generation)
    cost = generation.cost
    return View(
        model=debugger.name,
        cells=_cells(debugger, kinds),
        cursor=debugger.cursor,
        look=look,
        branches=_branches(debugger),
        settings=settings_line(generation),
        finish_reason=generation.finish_reason,
        computed=cost.computed,
        reused=cost.reused,
        ids=tuple(generation.token_array[: debugger.cursor].tolist()),
        uncoloured=probabilities.uncoloured,
        saved=debugger.saved,
    )


def make_layers(llm: LLM, ids: list[int], token: int) -> Layers:
    """What each layer would predict after these tokens, and the probability of `token` in it. Touches no debugger, so
    that it may run beside it."""
    seen = llm.lens(ids, positions=[len(ids) - 1], k=1, tokens=[token])
    rows = []
    for at, name in enumerate(seen.layers):
        top = llm.tokenizer.token_text(int(seen.top_ids[0, at, 0]))
        probability, of_top = (
            exp(min(0.0, float(a))) for a in (seen.logprobs[0, at], seen.top_logprobs[0, at, 0])
        )
        rows.append(LayerRow(str(name), top, of_top, probability, int(seen.ranks[0, at])))
    return Layers(llm.tokenizer.token_text(token), tuple(rows))


def settings_line(generation: Generation) -> str:
    """The sampling parameters that are not as they are by default, in the words that change them."""
    from pellucid.sampling.params import SamplingParams

    params = generation.params
    changed = []
    for field in SamplingParams.fields():
        value = getattr(params, field.name)
        if value != field.default and field.name not in ("temperature", "seed"):
            changed.append(f"{field.name}={cut(str(value), MOST_VALUE)}")
    seed = "" if params.greedy else f" seed={params.seed}"
    return " ".join([f"temperature={params.temperature:g}{seed}", *changed])


def _look(debugger: Debugger, kinds: list[str]) -> Look:
    generation, position = debugger.generation, debugger.cursor
    logits = debugger.logits_at(position)
    raw = Distribution(logits)
    chosen, why, processed = _choice(generation, position, logits)

    def row(token_id: int, rank: int) -> Row:
        after = None if processed is None else processed.probability(token_id)
        return Row(token_id, generation.token_text(token_id), raw.probability(token_id), after, rank)

    stands, kind = None, None
    if position < len(generation):
        token = int(generation.token_array[position])
        stands, kind = row(token, raw.rank(token)), kinds[position]
    return Look(
        position=position,
        rows=tuple(row(token, rank) for rank, token in enumerate(raw.top(MOST_ROWS))),
        stands=stands,
        kind=kind,
        entropy=raw.entropy,
        choice=chosen,
        no_choice=why,
        names={} if chosen is None else {each: generation.token_text(each) for each in chosen.named_ids},
    )


def _choice(
    generation: Generation, position: int, logits: Float32
) -> tuple[ChoiceRecord | None, str, Distribution | None]:
    """What the settings choose there, why they do not, and the distribution that they draw from."""
    if position < len(generation.prompt_tokens):
        return None, "a token of the prompt: nothing is chosen here", None
    try:
        chosen = choice_at(generation, position, logits, orders=False)
        processed = Distribution(processed_at(generation, position, logits))
    except PellucidError as error:
        return None, str(error), None
    return chosen, "", processed


def _kinds(generation: Generation) -> list[str]:
    """Of every token."""
    kinds = [PROMPT] * len(generation)
    for record in generation.records:
        kinds[record.position] = record.kind
    return kinds


def _cells(debugger: Debugger, kinds: list[str]) -> tuple[Cell, ...]:
    generation = debugger.generation
    texts = debugger.texts_of(generation.token_array.tolist())
    columns = zip(texts, debugger.probabilities.values, kinds, strict=True)
    return tuple(Cell(*column) for column in columns)


def _branches(debugger: Debugger) -> tuple[BranchRow, ...]:
    """In the order of the tree, parents first."""
    rows = []
    numbers = {id(branch): number for number, branch in enumerate(debugger.branches, 1)}
    for branch in debugger.generation.branch.root.walk():
        generation = branch.generation
        if generation is None or id(generation) not in numbers:
            continue
        number = numbers[id(generation)]
        ids = generation.token_array[-TAIL:].tolist()
        rows.append(
            BranchRow(
                number,
                branch.depth,
                number - 1 == debugger.current,
                len(generation),
                branch.forked_at,
                "".join(debugger.texts_of(ids))[-TAIL:],
                generation.finish_reason,
            )
        )
    return tuple(rows)
