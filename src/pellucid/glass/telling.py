"""An `Explanation` as a story in plain text, in the order in which things happened. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, exp, isinf
from typing import TYPE_CHECKING

from pellucid.glass.lens import settled
from pellucid.glass.words import cells, counted, flowed, padded, percent, quoted, unbroken, wrapped

if TYPE_CHECKING:
    from pellucid.glass.explain import Explanation, PassSeen, RowSeen

INDENT = 2
MOST_PIECE = 16  # cells of a token in a table
MOST_TOKENS = 40  # of the prompt that are listed
NARROW = 64  # cells: below that, lines that go on begin further left
MOST_TURNS = 6  # layers at which the most probable token changes that are told, the last ones
MOST_INPUTS = 12  # of each kind that a turn's input is shown with


def tell(told: Explanation, width: int) -> list[str]:
    """The lines of it, of at most `width` cells (but for a single word that is longer)."""
    turns = [line for number in range(1, len(told.passes) + 1) for line in tell_turn(told, number, width)]
    return [*tell_beginning(told, width), *turns, *tell_end(told, width)]


def tell_beginning(told: Explanation, width: int) -> list[str]:
    """Before the first turn."""
    return ["The text becomes tokens", *_prompt(told, width)]


def tell_turn(told: Explanation, number: int, width: int) -> list[str]:
    """One turn, from 1 on; those after it need not be there yet."""
    each = told.passes[number - 1]
    return ["", _title(number, each), *_pass(told, number, each, width)]


def tell_end(told: Explanation, width: int) -> list[str]:
    """After the last turn."""
    return ["", "What it came to", *_sum(told, width)]


def _prompt(told: Explanation, width: int) -> Iterator[str]:
    model = f"the vocabulary of {told.model} has {told.vocabulary_size:,}"
    yield from wrapped(f"{counted(len(told.prompt), 'token')}; {model}.", width, INDENT)
    left_out = max(0, len(told.prompt) - MOST_TOKENS)
    shown = told.prompt[left_out:]
    texts = [quoted(token.text, MOST_PIECE) for token in shown]
    pieces = [quoted(token.piece, MOST_PIECE)[1:-1] for token in shown]
    column = max(map(cells, ["text", *texts]))
    with_pieces = 21 + column + 2 + max(map(cells, ["piece", *pieces])) <= width
    yield f"  {'position':>8}  {'id':>7}  " + (f"{'text':<{column}}  piece" if with_pieces else "text")
    if left_out:
        yield from wrapped(f"({counted(left_out, 'token')} before these are not listed)", width, INDENT)
    for token, text, piece in zip(shown, texts, pieces, strict=True):
        head = f"  {token.position:>8}  {token.token_id:>7}  "
        yield head + (f"{padded(text, column)}  {piece}" if with_pieces else text)


def _title(number: int, each: PassSeen) -> str:
    last = each.rows[-1].token
    what = "the prompt" if number == 1 else "one more token"
    if each.computed == 1:
        return f"Turn {number}: {what} (position {last.position})"
    return f"Turn {number}: {what} (positions {each.reused} to {last.position})"


def _pass(told: Explanation, number: int, each: PassSeen, width: int) -> Iterator[str]:
    yield from _input(told, number, each, width)
    for paragraph in _what_rows_do(told, number):
        yield from wrapped(paragraph, width, INDENT)
    hidden = each.computed - len(each.rows)
    if hidden > 0:
        yield from wrapped(f"({counted(hidden, 'row')} before these are not told; --rows N)", width, 4)
    for row in each.rows:
        yield from _row(row, width)
    yield from _layers(each, width)
    yield from wrapped(f"The choice of position {each.choice.position}: {_choice(told, each)}", width, INDENT)
    for stage in each.choice.stages:
        effect = f"{stage.left:,} tokens left"
        if stage.removed:
            effect += (
                f"; {stage.removed:,} with {percent(stage.removed_probability)} of the probability are out"
            )
        yield from wrapped(f"{stage.name}: {effect}; {_moved(each, stage.moved, stage.top)}", width, 4, 6)
    if not told.greedy:
        for line in _draw(told, each):
            yield from wrapped(line, width, 4, 6)
    appended = each.appended
    end = "" if each.finish_reason is None else f" The generation ends here: {_reason(each.finish_reason)}."
    yield from wrapped(
        f"{_name(appended.text)} (id {appended.token_id}) is appended at position {appended.position}.{end}",
        width,
        INDENT,
    )
    yield from wrapped(f"Text now: {quoted(each.text, 4 * width)}", width, INDENT, 4)


def _input(told: Explanation, number: int, each: PassSeen, width: int) -> Iterator[str]:
    """What goes in: all tokens so far; what of them is there, and what is computed."""
    tokens = [*told.prompt, *(turn.appended for turn in told.passes[: number - 1])]
    yield from wrapped(
        f"Input: the {counted(each.length, 'token')} so far (position, id, text).", width, INDENT
    )
    for what, part in (("reused", tokens[: each.reused]), ("computed", tokens[each.reused :])):
        shown = [f"{t.position} {t.token_id} {quoted(t.text, MOST_PIECE)}" for t in part[-MOST_INPUTS:]]
        if len(part) > len(shown):
            shown.insert(0, f"({len(part) - len(shown):,} before)")
        if shown:
            yield from flowed(f"    {what:<10}", shown, width, "   ", 6 if width < NARROW else 14)
    passes = ceil(each.computed / told.chunk)
    how = "together" if passes == 1 else f"in {passes} passes of at most {told.chunk}"
    if each.reused == 0:
        there = "Of none are keys and values there yet"
    else:
        there = f"Keys and values of {counted(each.reused, 'position')} are there"
    rows = f"{counted(each.computed, 'row')} {'goes' if each.computed == 1 else 'go'} through the "
    layers = f"{told.num_layers} layers{' ' + how if each.computed > 1 else ''}"
    yield from wrapped(f"{there}; {rows}{layers}.", width, INDENT)


def _what_rows_do(told: Explanation, number: int) -> Iterator[str]:
    if number > 1:
        return
    size = f"{told.kv_bytes:,} bytes a position in {told.kv_format}"
    yield f"Each layer keeps the keys and values of every row ({size}), so that no position is computed twice."
    seen = "A row sees itself and the rows before it, never one after it"
    for layers, window in told.windows:
        seen += f" (in {counted(layers, 'layer')} only the last {window:,})"
    yield f"{seen}. So every row predicts the token after it; to go on, only the last row's prediction is needed."


def _row(row: RowSeen, width: int) -> Iterator[str]:
    """position, input -> what it predicts; then what came."""
    narrow = width < NARROW
    most = 10 if narrow else MOST_PIECE
    head = f"    {row.token.position:>4} {padded(quoted(row.token.text, most), most + 2)} predicts "
    pieces = [f"{quoted(each.text, most)} {percent(each.probability)}" for each in row.top]
    if row.follows is None:
        pieces.append("| nothing yet: the choice")
    else:
        pieces.append(f"| comes {quoted(row.follows.text, most)} {percent(row.follows.probability)}")
        pieces.append(f"(rank {row.follows.rank + 1:,})")
    yield from flowed(head, pieces, width, "  ", 6 if narrow else cells(head))


def _layers(each: PassSeen, width: int) -> Iterator[str]:
    """Where the chosen token came up on its way through the layers; and the most probable ones where they changed."""
    layers = each.layers
    since = settled([layer.rank for layer in layers])
    chosen = _name(each.names[each.choice.token_id])
    if since == len(layers):
        said = f"{chosen} is not the first of them at the end (rank {layers[-1].rank + 1:,})"
    else:
        said = f"{chosen} is first from layer {layers[since].name} on"
    yield from wrapped(f"On the way up, were each layer the last: {said}.", width, INDENT)
    turns = [b for a, b in pairwise(layers) if a.top_id != b.top_id][-MOST_TURNS:]
    pieces = [f"{layer.name} {quoted(layer.top, 10 if width < NARROW else MOST_PIECE)}" for layer in turns]
    yield from flowed("    first by layer: ", pieces, width, "  ", 6)


def _name(text: str) -> str:
    """A token in a sentence."""
    return unbroken(quoted(text))


def _choice(told: Explanation, each: PassSeen) -> str:
    choice, names = each.choice, each.names
    chosen = _name(names[choice.token_id])
    if told.greedy:
        text = f"temperature 0, so the largest logit is taken: {chosen} {choice.logit:.3f}."
        if choice.runner_up is not None:
            text += f" {_name(names[choice.runner_up])} is next, {choice.margin:.3f} lower."
        return text
    rank = "the most probable" if choice.raw_rank == 0 else f"rank {choice.raw_rank + 1:,}"
    return f"drawn at temperature {told.temperature:g}: {chosen}, {rank} under the model."


def _moved(each: PassSeen, moved: int, top: int) -> str:
    first = f"the most probable is {_name(each.names[top])}"
    return f"{counted(moved, 'logit')} changed, {first}" if moved else f"no logit changed, {first}"


def _draw(told: Explanation, each: PassSeen) -> Iterator[str]:
    choice = each.choice
    yield (
        f"Every token left gets noise that is a function of (seed {told.seed}, sample 0, position "
        f"{choice.position}, its id); the largest sum of logit and noise is taken, which draws each token with its "
        "probability."
    )
    yield (
        f"{_name(each.names[choice.token_id])}: probability {percent(exp(min(0.0, choice.logprob)))} after the stages, "
        f"logit {choice.logit:.3f} + noise {choice.noise:.3f} = {choice.score:.3f}"
    )
    if choice.runner_up is not None and not isinf(choice.margin):
        yield (
            f"{_name(each.names[choice.runner_up])}: logit {choice.runner_up_logit:.3f} + noise "
            f"{choice.runner_up_noise:.3f} = {choice.score - choice.margin:.3f}, {choice.margin:.3f} lower"
        )


def _reason(reason: str) -> str:
    words = {
        "eos": "the model ended the text (eos)",
        "length": "max_tokens is reached (length)",
        "stop": "a stop token or string was met (stop)",
        "context": "the context is full (context)",
    }
    return words.get(reason, reason)


def _sum(told: Explanation, width: int) -> Iterator[str]:
    computed = sum(each.computed for each in told.passes)
    without = sum(each.length for each in told.passes)
    turns = counted(len(told.passes), "turn")
    yield from wrapped(
        f"{turns} computed {counted(computed, 'row')}. Without kept keys and values every turn would compute all of "
        f"its input: {counted(without, 'row')}.",
        width,
        INDENT,
    )
    same = sum(told.check.same)
    bits = "are the same, bit for bit" if same == len(told.check.same) else "ARE NOT ALL THE SAME"
    yield from wrapped(
        f"Check: all tokens but the last once more, {counted(told.check.computed, 'row')} and nothing reused. The "
        f"logits behind {same} of {counted(len(told.check.same), 'choice')} {bits}: it does not matter in which "
        "pieces a text is computed.",
        width,
        INDENT,
    )
    for number, (each, same_bits) in enumerate(zip(told.passes, told.check.same, strict=True), 1):
        yield f"    turn {number}: {each.digest} {'same' if same_bits else 'DIFFERENT'}"
