"""Why the tokens of an answer, and what a conversation consists of: tables for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import TYPE_CHECKING

from pellucid.cli import _console
from pellucid.glass.words import counted

if TYPE_CHECKING:
    from pellucid.chat.session import ChatSession
    from pellucid.outputs import TokenLogprobs
    from pellucid.text.tokenizer import Tokenizer

MAX_TOKEN = 16  # characters of a token that are shown


def why_table(tokens: Sequence[TokenLogprobs], width: int) -> str:
    """One line a token: its probability, its margin, and the most probable others.

    p: the probability that the model gave it. margin: its log-probability less that of the best other token;
    below zero, another was more probable. from: the probability with which it was drawn, after temperature and cuts.
    """
    texts = [_shown(token.text) for token in tokens]
    column = min(MAX_TOKEN, max([5, *map(len, texts)]))
    drawn = any(token.processed_logprob != token.logprob for token in tokens)
    head = f"{'token':<{column}}  {'p':>5}  {'margin':>6}" + ("   from" if drawn else "") + "  others"
    lines = [head[:width]]
    for text, token in zip(texts, tokens, strict=True):
        others = [other for other in token.top if other.token_id != token.token_id]
        margin = f"{token.logprob - others[0].logprob:+6.2f}" if others else " " * 6
        line = f"{text:<{column}}  {exp(token.logprob):5.3f}  {margin}"
        if drawn:
            line += f"  {exp(token.processed_logprob):5.3f}"
        for other in others:
            piece = f"  {_shown(other.text)} {exp(other.logprob):.3f}"
            if len(line) + len(piece) > width:
                break
            line += piece
        lines.append(line)
    return "\n".join(lines)


def _shown(text: str) -> str:
    """A token on one line, a space at its ends visible."""
    text = _console.visible(text)
    text = text.replace(" ", "\u00b7") if text != text.strip() or not text else text
    return text if len(text) <= MAX_TOKEN else text[: MAX_TOKEN - 1] + "\u2026"


def token_table(chat: ChatSession, tokenizer: Tokenizer, context_length: int, width: int) -> str:
    """What each turn costs in tokens, and the last answer token by token."""
    lines = ["turn  prompt  new  kept  dropped  answer"]
    for number, turn in enumerate(chat.turns, 1):
        change = turn.change
        lines.append(
            f"{number:>4}  {len(turn.prompt):>6}  {change.added:>3}  {change.kept:>4}  {change.dropped:>7}  "
            f"{len(turn.token_ids):>6}"
        )
    if chat.turns:
        pieces = [_console.visible(tokenizer.piece(i)) for i in chat.turns[-1].token_ids]
        lines += _wrapped(pieces, width)
    lines.append(f"{len(chat.tokens)} of {context_length} tokens of the context are used")
    return "\n".join(lines)


def branch_table(chat: ChatSession, width: int) -> str:
    """The branches, and where the conversation is; how each begins and ends."""
    lines = []
    for branch in chat.branches:
        mark = "*" if branch.current else " "
        turns = counted(branch.num_turns, "turn")
        last = "" if branch.turn is None else str(branch.turn.inputs[-1].get("content") or "")
        answer = "" if branch.turn is None else branch.turn.text
        line = (
            f"{mark}{branch.index:>2}  {turns:<8}  {_console.visible(last)} \u2192 {_console.visible(answer)}"
        )
        lines.append(line if len(line) <= width else line[: width - 1] + "\u2026")
    return "\n".join(lines)


def _wrapped(pieces: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for piece in pieces:
        if len(lines[-1]) + len(piece) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] += piece + "|"
    return lines
