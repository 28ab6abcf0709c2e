"""The part of the front door behind which something is kept: generations and conversations, begun and restored."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pellucid.prompts import check_flag

if TYPE_CHECKING:
    from pellucid.chat_session import ChatSession
    from pellucid.decoding.beam import EarlyStopping
    from pellucid.decoding.exact import Bounds
    from pellucid.generation import Generation
    from pellucid.held_tree import Constraint
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.search import BeamResult, SearchResult
    from pellucid.text.tool_schema import Tool


class Sessions:
    """Inherited by `LLM`, and by nothing else."""

    _fingerprint: dict[str, str | int] | None = None

    def begin(
        self,
        prompt: str | Sequence[int] | Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        template_variables: Mapping[str, Any] | None = None,
        cache_salt: str | None = None,
        sample_index: int = 0,
        **overrides: Any,
    ) -> Generation:
        """A generation to be driven by hand: see `Generation`. Nothing is computed yet.

        prompt: text, token ids, or chat messages. sample_index: which of the samples of `generate(n=...)` it
        draws. Other arguments and errors: those of `generate` and `chat`.
        """
        from pellucid.beginning import begin

        return begin(
            cast("LLM", self),
            prompt,
            params,
            model_defaults=model_defaults,
            parse_special=parse_special,
            template_variables=template_variables,
            cache_salt=cache_salt,
            sample_index=sample_index,
            overrides=overrides,
        )

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
        max_nodes, max_seconds: the budget; None: no end of it. batch_size: prefixes of one pass; most_held: prefixes
        that keep keys and values: neither changes a result. num_beams: of the beam search that is compared.
        on_progress: called with the bounds after each pass.
        Errors: those of `generate`; UsageError: what has no bound, or no fixed distribution, saying why.
        """
        from pellucid.search import search

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
        Other arguments and errors: those of `search`.
        """
        from pellucid.search import beam_search

        return beam_search(
            cast("LLM", self),
            prompt,
            params,
            max_tokens=max_tokens,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            min_tokens=min_tokens,
            constraint=constraint,
            cache_salt=cache_salt,
            overrides=overrides,
        )

    def restore(self, path: str | os.PathLike[str], *, kv: bool = True) -> Generation:
        """The generation that `Generation.save` wrote; the other branches of its tree are in its `restored`, what was
        saved beside it in `extra`. Nothing is computed again that was computed, as far as the KV cache has room.

        kv: False: leave the file's keys and values, so that it may come from another backend or KV format.
        Errors: SessionFileError (absent, damaged, or of another model, tokenizer, KV format, backend).
        """
        from pellucid.session_save import restore

        check_flag("kv", kv)
        return restore(cast("LLM", self), path, kv=kv)

    def chat_session(
        self,
        *,
        system: str | None = None,
        tools: Sequence[Tool] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        params: SamplingParams | None = None,
        model_defaults: bool = False,
        **overrides: Any,
    ) -> ChatSession:
        """A conversation over many turns, of which each costs its new tokens: see `ChatSession`.

        system: the system message. tools: Python functions with annotations and a docstring, or JSON schemas.
        template_variables: further variables of the template. params, model_defaults, overrides: as of `generate`, for
        every answer.
        Errors: UsageError; TemplateError: no template, or one that ignores the system message or the tools.
        """
        from pellucid.chat_session import ChatSession

        return ChatSession(
            cast("LLM", self),
            system=system,
            tools=tools,
            template_variables=template_variables,
            params=params,
            model_defaults=model_defaults,
            **overrides,
        )

    def restore_chat(
        self, path: str | os.PathLike[str], *, tools: Sequence[Tool] | None = None, kv: bool = True
    ) -> ChatSession:
        """A conversation that `ChatSession.save` wrote, with its branches and sampling parameters. Its keys and values
        are in the prefix cache afterwards, as far as there is room, so that a turn costs its new tokens.

        tools: the functions that were its tools, for `run_tools`; their schemas must be the saved ones.
        kv: False: leave the file's keys and values, so that it may come from another backend or KV format; the next
        turn computes the conversation.
        Errors: ChatFileError (unreadable, damaged, of another model, backend, KV format), UsageError (other tools).
        """
        from pellucid.chat_save import restore

        check_flag("kv", kv)
        return restore(cast("LLM", self), path, tools, kv=kv)
