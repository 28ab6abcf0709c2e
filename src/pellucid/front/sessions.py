"""The part of the front door behind which something is kept: generations and conversations, begun and restored."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pellucid.prompts import check_flag

if TYPE_CHECKING:
    from pellucid.chat.session import ChatSession
    from pellucid.front.recorder import Recorder
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import Intervention
    from pellucid.held.generation import Generation
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.text.tool_schema import Tool


class Sessions:
    """Inherited by `LLM`, and by nothing else."""

    _fingerprint: dict[str, str | int] | None = None
    _model_print: dict[str, str] | None = None

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
        capture: Capture | None = None,
        interventions: Sequence[Intervention] = (),
        record: Recorder | str | os.PathLike[str] | None = None,
        **overrides: Any,
    ) -> Generation:
        """A generation to be driven by hand: see `Generation`. Nothing is computed yet.

        prompt: text, token ids, or chat messages. sample_index: which of the samples of `generate(n=...)` it
        draws. Other arguments and errors: those of `generate` and `chat`.
        """
        from pellucid.held.beginning import begin

        return begin(
            cast("LLM", self),
            prompt,
            params,
            model_defaults=model_defaults,
            parse_special=parse_special,
            template_variables=template_variables,
            cache_salt=cache_salt,
            sample_index=sample_index,
            capture=capture,
            interventions=interventions,
            overrides=overrides,
            record=record,
        )

    def restore(self, path: str | os.PathLike[str], *, kv: bool = True) -> Generation:
        """The generation that `Generation.save` wrote; the other branches of its tree are in its `restored`, what was
        saved beside it in `extra`. Nothing is computed again that was computed, as far as the KV cache has room.

        kv: False: leave the file's keys and values, so that it may come from another backend or KV format.
        Errors: SessionFileError (absent, damaged, or of another model, tokenizer, KV format, activations, backend).
        """
        from pellucid.held.session_save import restore

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
        from pellucid.chat.session import ChatSession

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
        Errors: ChatFileError (unreadable, damaged, of another model, backend, KV format, activations), UsageError
        (other tools).
        """
        from pellucid.chat.save import restore

        check_flag("kv", kv)
        return restore(cast("LLM", self), path, tools, kv=kv)
