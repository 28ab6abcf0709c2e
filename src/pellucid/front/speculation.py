"""What an LLM speculates with: measured costs, earlier outputs, a smaller model; and which strategy a request gets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pellucid.errors import ContextOverflowError, UsageError

if TYPE_CHECKING:
    from pellucid.decoding.drafts.base import Drafter
    from pellucid.decoding.drafts.corpus import Corpus
    from pellucid.decoding.speculative import Speculative
    from pellucid.engine.engine import Engine
    from pellucid.engine.held import Held
    from pellucid.engine.request import StrategyOf
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.types import Float32, Int32


class Speculation:
    """Of one LLM. corpus_tokens: of earlier outputs that are remembered, over all salts; 0: none are. draft_model:
    guesses for this one; it is closed with it where it was opened for it."""

    def __init__(self, engine: Engine, *, corpus_tokens: int = 0) -> None:
        self._costs = engine.costs
        self._scheduler = engine.scheduler
        self._vocabulary_size: int = engine.model.vocabulary_size
        self._corpus_tokens = corpus_tokens
        self.draft_model: LLM | None = None
        self.owns_draft_model = False
        self._corpora: OrderedDict[Hashable, Corpus] = OrderedDict()  # by salt, the least recently used first

    def strategy_of(self, params: SamplingParams, salt: Hashable) -> tuple[str, StrategyOf | None]:
        """The strategy of a request: its name, and what makes it where that is not its class alone."""
        if params.speculation == "jacobi":
            return "jacobi", None
        if params.speculation == "off":
            return "constrained" if params.constraint_source() else "sample", None
        return "speculative", partial(self.strategy, salt)

    def count_rows(self) -> None:
        """The next pass has one row of somebody who is driven by hand, beside those that run."""
        self._costs.rows = 1 + self._scheduler.num_rows

    def strategy(self, salt: Hashable, params: SamplingParams, seed: int) -> Speculative:
        from pellucid.decoding.speculative import Drafting, Speculative

        drafting = Drafting(self._costs, self._vocabulary_size, partial(self._drafters, salt))
        return Speculative(params, seed, drafting)

    def _drafters(self, salt: Hashable, params: SamplingParams, seed: int) -> Sequence[Drafter]:
        found: list[Drafter] = []
        if self._corpus_tokens:
            from pellucid.decoding.drafts.corpus import CorpusDrafter

            found.append(CorpusDrafter(self._corpus(salt)))
        if self.draft_model is not None:
            from pellucid.decoding.drafts.draft_model import ModelDrafter

            found.append(ModelDrafter(LLMPredictor(self.draft_model), params, seed))
        return found

    def close(self) -> None:
        if self.draft_model is not None and self.owns_draft_model:
            self.draft_model.close()
        self.draft_model = None

    # --- earlier outputs ------------------------------------------------------------------------------
    def remember(self, outputs: Sequence[list[int]], salt: Hashable) -> None:
        """What a request has put out, for later ones of the same salt."""
        if not self._corpus_tokens:
            return
        corpus = self._corpus(salt)
        for output in outputs:
            corpus.add(output)
        while sum(map(len, self._corpora.values())) > self._corpus_tokens and len(self._corpora) > 1:
            self._corpora.popitem(last=False)

    def _corpus(self, salt: Hashable) -> Corpus:
        from pellucid.decoding.drafts.corpus import Corpus

        if salt not in self._corpora:
            self._corpora[salt] = Corpus(self._corpus_tokens)
        self._corpora.move_to_end(salt)
        return self._corpora[salt]


class LLMPredictor:
    """`decoding.drafts.draft_model.Predictor`: held sequences of a smaller LLM, one for each sample."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._held: dict[int, Held] = {}

    def logits(self, sample_index: int, token_ids: Int32) -> Float32 | None:
        from pellucid.arrays import common_length

        driver = self._llm._open_driver()
        held = self._held.get(sample_index)
        try:
            if held is None:
                held = self._held[sample_index] = driver.hold(token_ids)
            else:
                same = common_length(held.token_ids, token_ids)
                if same == 0:
                    held = self._held[sample_index] = driver.hold(token_ids)
                else:
                    held.truncate(same)
                    if same < len(token_ids):
                        held.append(token_ids[same:])
        except ContextOverflowError:
            return None
        row: Float32 = driver.evaluate([held])[0][0]
        return row


def check_draft_model(llm: LLM, draft: LLM) -> None:
    """UsageError: `draft` cannot guess for `llm`."""
    ours, theirs = llm.tokenizer, draft.tokenizer
    if draft is llm:
        raise UsageError("draft_model: expected another, smaller LLM, got this one")
    if draft._driver.speculation.draft_model is not None:
        raise UsageError("draft_model: it has a draft_model itself; give one without")
    sizes = llm._need().model.vocabulary_size, draft._need().model.vocabulary_size
    if sizes[0] != sizes[1] or ours.vocabulary_size != theirs.vocabulary_size:
        raise UsageError(f"draft_model: expected the same vocabulary, got {sizes[1]} logits for {sizes[0]}")
    for token in range(ours.vocabulary_size):
        if ours.piece(token) != theirs.piece(token):
            raise UsageError(
                f"draft_model: expected the same vocabulary, but token {token} is {theirs.piece(token)!r:.40} "
                f"there and {ours.piece(token)!r:.40} here; give a model of the same tokenizer"
            )
