"""The part of the front door that scores given texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from pellucid.errors import PellucidError, UsageError

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.scoring.results import Perplexity, Scores, StringProbability
    from pellucid.scoring.strings import ByteTokens


class Scoring:
    """Inherited by `LLM`, and by nothing else."""

    _byte_tokens: ByteTokens | None = None

    def score(
        self,
        context: str | Sequence[int],
        continuations: Sequence[str | Sequence[int]],
        *,
        boundary: str = "joint",
        unconditional: str | Sequence[int] | None = None,
        truncate: bool = False,
    ) -> Scores:
        """The log-probability of each continuation after the context, token by token.

        context, continuations: texts, or token ids all of them. Texts are encoded as one and cut, spaces at the
        end of the context belong to the continuation, an empty context is the BOS token (or else the end token),
        as lm-evaluation-harness has it. boundary: where a token lies across the cut, "joint" scores that token
        whole and "harness" what follows as many tokens as the context alone has, as the harness does; for the
        bytes themselves see `string_probability`. unconditional: a context such as "" for `Score.pmi`.
        truncate: a context that is too long loses tokens at its left (`Score.num_dropped`) in place of an error.
        Errors: UsageError (an empty continuation, ids and text mixed), ContextOverflowError.
        """
        from pellucid.scoring.many import score_items

        item = (context, continuations)
        (found,) = score_items(cast("LLM", self), [item], boundary, unconditional, truncate)
        if isinstance(found, Exception):
            raise found
        return found

    def score_many(
        self,
        items: Iterable[tuple[str | Sequence[int], Sequence[str] | Sequence[Sequence[int]]]],
        *,
        boundary: str = "joint",
        unconditional: str | Sequence[int] | None = None,
        truncate: bool = False,
    ) -> Iterator[Scores]:
        """As `score` of each (context, continuations), in their order, with the same bits, and faster: the tries of
        many items share passes, and equal contexts are computed once.

        items: any number; they are read as their turn comes, a few dozen at a time, and their results dropped once
        given. Errors: those of `score`, raised in the item's place; the message names it, and nothing follows.
        """
        from pellucid.scoring.many import score_items
        from pellucid.scoring.score import check_boundary

        check_boundary(boundary)
        found = score_items(cast("LLM", self), items, boundary, unconditional, truncate)
        return _raising(found)

    def rank(
        self,
        context: str | Sequence[int],
        continuations: Sequence[str | Sequence[int]],
        *,
        by: str = "logprob",
        boundary: str = "joint",
        unconditional: str | Sequence[int] | None = None,
        truncate: bool = False,
    ) -> list[int]:
        """Indexes of the continuations, the best first; of equals the first given.

        by: "logprob", "per_token", "per_character", "per_byte" or "pmi" (needs unconditional). Other arguments
        and errors: those of `score`.
        """
        from pellucid.scoring.score import ranked

        if by == "pmi" and unconditional is None:
            raise UsageError('by="pmi" needs an unconditional context, e.g. unconditional=""')
        scores = self.score(
            context, continuations, boundary=boundary, unconditional=unconditional, truncate=truncate
        )
        return ranked(scores, by)

    def perplexity(self, text: str, *, window: int | None = None, stride: int | None = None) -> Perplexity:
        """How well the model predicts a text of any length: log-probability, perplexities, bits per byte.

        window: tokens that a pass sees at most; default: the context. stride: how many tokens each window after
        the first predicts; default: window, so that windows do not overlap, as in lm-evaluation-harness. Less
        gives each token more context and costs more. Before the text stands BOS (or else the end token).
        Errors: UsageError (no text, window or stride out of range).
        """
        from pellucid.scoring.score import perplexity

        return perplexity(cast("LLM", self), text, window, stride)

    def string_probability(
        self, context: str | Sequence[int], string: str | bytes, *, max_nodes: int = 256
    ) -> StringProbability:
        """The probability that the text after the context starts with these bytes, however it is tokenised.

        max_nodes: how many token paths are looked at, the most probable first; what is left makes the interval
        lower..upper. Outputs with a control token before the string is complete are not counted.
        Errors: UsageError (an empty string, max_nodes below 1), ContextOverflowError.
        """
        from pellucid.scoring.encode import id_list, prefix_id
        from pellucid.scoring.strings import ByteTokens, string_probability

        llm = cast("LLM", self)
        data = string.encode("utf-8") if isinstance(string, str) else bytes(string)
        if not data or max_nodes < 1:
            raise UsageError(f"expected at least one byte and one node, got {len(data)} and {max_nodes}")
        if context == "":
            ids = [prefix_id(llm.tokenizer)]
        else:
            ids = llm.tokenizer.encode(context) if isinstance(context, str) else id_list(context)
        if self._byte_tokens is None:
            self._byte_tokens = ByteTokens(llm.tokenizer, llm._need().model.vocabulary_size)
        return string_probability(llm._open_driver(), self._byte_tokens, ids, data, max_nodes)


def _raising(found: Iterable[Scores | PellucidError]) -> Iterator[Scores]:
    for index, scores in enumerate(found):
        if isinstance(scores, PellucidError):
            raise type(scores)(f"item {index}: {scores}")
        yield scores
