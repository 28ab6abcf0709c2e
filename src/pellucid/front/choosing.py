"""The part of the front door that chooses among outputs: searches, beams, samples compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pellucid.decoding.beam import EarlyStopping
    from pellucid.decoding.exact import Bounds
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.search.beams import BeamResult, StochasticBeamResult
    from pellucid.search.contrastive import ContrastiveResult
    from pellucid.search.reranking import Compare, Consensus, Extractor, Reranked, Scorer
    from pellucid.search.search import SearchResult
    from pellucid.search.tree import Constraint

    Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


class Choosing:
    """Inherited by `LLM`, and by nothing else."""

    def search(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int,
        n: int = 1,
        objective: str = "logprob",
        min_tokens: int = 0,
        must_end: bool = False,
        constraint: Constraint | None = None,
        max_nodes: int | None = 100_000,
        max_seconds: float | None = None,
        max_memory: int | None = 1 << 30,
        batch_size: int = 16,
        num_beams: int = 4,
        most_held: int = 4096,
        on_progress: Callable[[Bounds], None] | None = None,
        cache_salt: str | None = None,
        **overrides: Any,
    ) -> SearchResult:
        """The n most probable outputs of at most max_tokens tokens, proved to be, or how far they may be from that.

        An output ends with an end token, or is cut at max_tokens (must_end: those do not count). objective: "logprob"
        (the sum of log-probabilities), "per_token" (that divided by the length, the end token counted), or
        "per_length" (the n best of every length). min_tokens: end tokens are forbidden before; probabilities stay the
        model's. constraint: a ConstraintState; it forbids tokens likewise. params, overrides: stages such as
        temperature, top_k, top_p make the distribution that is searched; without any it is the model's own.
        max_nodes, max_seconds, max_memory: the budget; None: no end of it. max_memory is of the search's own nodes, in
        bytes; keys and values live in the KV cache, and are computed again where it is full. batch_size: prefixes of
        one pass; most_held: prefixes that keep keys and values: neither changes a result. num_beams: of the beam
        search that is compared.
        on_progress: called with the bounds after each pass.
        Errors: those of `generate`; UsageError: what has no bound, or no fixed distribution, saying why.
        """
        from pellucid.search.search import search

        return search(
            cast("LLM", self),
            prompt,
            params,
            max_tokens=max_tokens,
            n=n,
            objective=objective,
            min_tokens=min_tokens,
            must_end=must_end,
            constraint=constraint,
            max_nodes=max_nodes,
            max_seconds=max_seconds,
            max_memory=max_memory,
            batch_size=batch_size,
            num_beams=num_beams,
            most_held=most_held,
            on_progress=on_progress,
            cache_salt=cache_salt,
            overrides=overrides,
        )

    def beam_search(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int,
        num_beams: int = 4,
        num_groups: int = 1,
        diversity: float = 0.0,
        best_first: bool = False,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = False,
        min_tokens: int = 0,
        constraint: Constraint | None = None,
        cache_salt: str | None = None,
        **overrides: Any,
    ) -> BeamResult:
        """Beam search, as transformers' generate(num_beams=...) does it; the beams share all that is computed.

        length_penalty: a finished output's value is its sum of log-probabilities / length^length_penalty.
        early_stopping: once num_beams outputs are finished, end at once (True), when the best running prefix would not
        beat the worst of them at its present length (False), or at the length that is kindest to it ("never").
        num_groups: the beams are divided into so many groups, each of which runs by itself, and pays `diversity` nats
        for a token as often as earlier groups have just taken it (diverse beam search).
        best_first: the same outputs from fewer rows (needs early_stopping="never", or False and length_penalty <= 0).
        Other arguments and errors: those of `search`.
        """
        from pellucid.search.beams import beam_search

        return beam_search(
            cast("LLM", self),
            prompt,
            params,
            max_tokens=max_tokens,
            num_beams=num_beams,
            num_groups=num_groups,
            diversity=diversity,
            best_first=best_first,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            min_tokens=min_tokens,
            constraint=constraint,
            cache_salt=cache_salt,
            overrides=overrides,
        )

    def stochastic_beam_search(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int,
        n: int = 4,
        seed: int | None = None,
        min_tokens: int = 0,
        constraint: Constraint | None = None,
        cache_salt: str | None = None,
        **overrides: Any,
    ) -> StochasticBeamResult:
        """n different samples, drawn without replacement (stochastic beam search), with importance weights.

        The first is an ordinary sample; each further one is what sampling again and again would give, had it to be
        new. seed: the same seed gives the same samples; None: a fresh one, told in the result. min_tokens and a
        constraint forbid tokens, and the probabilities of the others are made to sum to 1 at each step.
        Other arguments and errors: those of `search`.
        """
        from pellucid.search.beams import stochastic_beam_search

        return stochastic_beam_search(
            cast("LLM", self),
            prompt,
            params,
            max_tokens=max_tokens,
            n=n,
            seed=seed,
            min_tokens=min_tokens,
            constraint=constraint,
            cache_salt=cache_salt,
            overrides=overrides,
        )

    def contrastive_search(
        self,
        prompt: Any,
        params: SamplingParams | None = None,
        *,
        max_tokens: int,
        alpha: float = 0.6,
        k: int = 4,
        min_tokens: int = 0,
        cache_salt: str | None = None,
        **overrides: Any,
    ) -> ContrastiveResult | list[ContrastiveResult]:
        """Contrastive search: at each step, of the k most probable tokens, that with the highest
        (1 - alpha) * probability - alpha * (greatest cosine of its hidden state with an earlier one).

        prompt: text or token ids, or a list of either: their candidates share passes, and a list comes back. params,
        overrides: stages (temperature, penalties, a constraint) make the distribution that candidates come from.
        Errors: those of `search`.
        """
        from pellucid.search.contrastive import contrastive_search

        return contrastive_search(
            cast("LLM", self),
            prompt,
            params,
            max_tokens=max_tokens,
            alpha=alpha,
            k=k,
            min_tokens=min_tokens,
            cache_salt=cache_salt,
            overrides=overrides,
        )

    def best_of(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        n: int = 8,
        by: str | Scorer = "mean",
        **arguments: Any,
    ) -> Reranked:
        """n samples, ranked: by their log-probability under the model ("sum", or "mean": per token, the end token
        counted), or by a function that takes a Sample and returns a number, higher for better.

        prompt: text, token ids, or messages for `chat`. arguments: those of `generate` (`chat`); a temperature above 0
        among them, or in params. Errors: those of `generate`.
        """
        from pellucid.search.reranking import best_of

        return best_of(cast("LLM", self), prompt, n, by, params, arguments)

    def self_consistency(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        n: int = 8,
        extract: str | Extractor,
        weighted: bool = False,
        **arguments: Any,
    ) -> Consensus:
        """The answer that most of n samples come to (of equals the one that came first).

        extract: how an answer is read from a text: a function (None: there is none), or a regular expression, of whose
        last match the first group counts. weighted: a vote counts as much as its sample is probable per token, in
        place of 1. Other arguments and errors: those of `best_of`.
        """
        from pellucid.search.reranking import self_consistency

        return self_consistency(cast("LLM", self), prompt, n, extract, weighted, params, arguments)

    def minimum_bayes_risk(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        n: int = 16,
        utility: str | Compare = "chrf",
        **arguments: Any,
    ) -> Reranked:
        """n samples, ranked by how like they are to all of them on average: the first has the least expected risk.

        utility: "exact" (equal texts), "token_f1" (words in common), "chrf" (chrF2: characters in common), or a
        function (text, reference) -> number, higher for more alike. Other arguments and errors: those of `best_of`.
        """
        from pellucid.search.reranking import minimum_bayes_risk

        return minimum_bayes_risk(cast("LLM", self), prompt, n, utility, params, arguments)
