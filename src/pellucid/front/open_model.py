"""A model that is open: what it is, and how a prompt becomes a request to it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from pellucid.errors import UsageError
from pellucid.front.loading import Begun, Loaded, load
from pellucid.front.looking import check_reach
from pellucid.front.speculation import Speculation, check_draft_model
from pellucid.outputs import Drop
from pellucid.overflow import slid_prompt
from pellucid.prompts import check_flag, check_salt, check_token_ids, check_vocabulary
from pellucid.serving.driver import Driver
from pellucid.settings import COMMAND_LINE, Setting, Settings, option_of

if TYPE_CHECKING:
    from typing import Self

    from pellucid.constraints.compiled import Compiled, Compiler
    from pellucid.fetch.progress import Progress
    from pellucid.front.looking import Looking
    from pellucid.front.recorder import Recorder
    from pellucid.info import ModelInfo
    from pellucid.limits import Limits
    from pellucid.llm import LLM
    from pellucid.models.base import Model
    from pellucid.sampling.params import SamplingParams
    from pellucid.serving.running import RunningRequest
    from pellucid.text.tokenizer import Tokenizer


class OpenModel:
    """The part of `LLM` that generates nothing."""

    def _open(self, begun: Begun) -> None:
        self._options = options = begun.options
        self._loaded: Loaded | None = load(begun)
        speculation = Speculation(self._loaded.engine, corpus_tokens=options.draft_corpus or 0)
        self._driver = Driver(self._loaded.engine, self._loaded.eos_ids, speculation)
        self._compiler: Compiler | None = None
        tokenizer = self._loaded.tokenizer
        # safe from several threads; holds no reference to self, which would be a cycle
        self._breakers = lru_cache(maxsize=16)(lambda texts: _spelled(tokenizer, texts))
        if options.draft_model is not None:
            self._open_draft_model(options.draft_model, begun.progress)
        self.load_seconds = perf_counter() - begun.since

    def _open_draft_model(self, given: LLM | str | os.PathLike[str], progress: Progress | None) -> None:
        from pellucid.llm import LLM

        if not isinstance(given, LLM | str | os.PathLike):
            self.close()
            raise UsageError(f"draft_model: expected an LLM, a path or a name, got {type(given).__name__}")
        speculation = self._driver.speculation
        threads = self.settings["num_threads"].value
        opened = given if isinstance(given, LLM) else LLM(given, num_threads=threads, progress=progress)
        try:
            check_draft_model(cast(LLM, self), opened)
        except BaseException:
            if opened is not given:
                opened.close()
            self.close()
            raise
        speculation.draft_model, speculation.owns_draft_model = opened, opened is not given

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
    def model(self) -> Model:
        """The model's page with its weights: for who looks inside. Its operations are not for two threads at once."""
        return self._need().model

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
        return probe(
            ops.runner,
            ops.matrix_shapes,
            loaded.model.vocabulary_size,
            quantised=quantised,
            unread=ops.screening.saved_bytes,
        )

    def close(self) -> None:
        """Abort what runs and let the memory go. A closed LLM answers with UsageError."""
        if self._loaded is not None:
            self._driver.close()
            self._driver.speculation.close()
            del self._driver, self._breakers
            self._loaded = None
            self._compiler = None

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
        record: Recorder | None = None,
        looking: Looking | None = None,
        open_ended: bool = False,
    ) -> RunningRequest:
        """Checked and tokenised, not yet in the engine. open_ended: the parameters do not tell how long it may become:
        it is driven by hand, or was ended from outside."""
        from pellucid.serving.running import RunningRequest

        if looking is not None:
            overrides = looking.overrides(params, overrides)
        loaded = self._need()
        check_flag("parse_special", parse_special)
        start = perf_counter()
        if isinstance(prompt, str):
            text, ids = prompt, loaded.tokenizer.encode(prompt, parse_special=parse_special)
        else:
            text, ids = None, prompt
        seconds = perf_counter() - start
        chosen, settings = self._resolve(params, overrides, model_defaults)
        drop = self._check_room(ids, chosen)
        merged = loaded.settings.merged(settings)
        salt = check_salt(cache_salt)
        written = None
        if record is not None:
            from pellucid.front.recorder import RequestRecord

            written = RequestRecord(record, cast("LLM", self))
        request = RunningRequest(
            text, ids, chosen, loaded.tokenizer, merged, seconds, streamed, salt, drop, written
        )
        request.companion_ids = self._companion(ids, chosen, parse_special)
        longest = None if open_ended else loaded.capacity.context_length
        check_reach(looking, len(request.run_ids), chosen, longest)
        if looking is not None:
            request.looking, request.watched = (
                looking,
                looking.begin(cast("LLM", self), len(request.run_ids), chosen),
            )
        return request

    def _recorder(self, record: Recorder | str | os.PathLike[str] | None) -> Recorder | None:
        """`record=` of a call. UsageError, RunFileError."""
        if record is None:
            return None
        from pellucid.front.recorder import as_recorder

        return as_recorder(record, cast("LLM", self))

    def _companion(self, ids: Sequence[int], params: SamplingParams, parse_special: bool) -> list[int] | None:
        """The prompt of guidance's second sequence. Errors: those of a prompt."""
        negative = params.negative_prompt
        if params.guidance_scale == 1.0:
            return None
        if negative is None:
            return list(ids[-1:])
        if isinstance(negative, str):
            found = self._need().tokenizer.encode(negative, parse_special=parse_special)
        else:
            found = list(negative)
        self._check_room(found, params)
        return found

    def _check_room(self, ids: Sequence[int], params: SamplingParams) -> Drop | None:
        """What overflow "slide" drops of the prompt. Errors: the prompt, or it and what must follow, do not fit."""
        loaded = self._need()
        if params.overflow == "slide":
            check_vocabulary(ids, loaded.model.vocabulary_size)
            return slid_prompt(len(ids), params, loaded.capacity.context_length)
        room = {"min_tokens": params.min_tokens, "max_tokens": params.max_tokens or 1}
        self._check(ids, loaded, room if params.overflow == "error" else {})
        return None

    def _resolve(
        self, params: SamplingParams | None, overrides: Mapping[str, Any], model_defaults: bool
    ) -> tuple[SamplingParams, list[Setting]]:
        from pellucid.resolve import resolve_sampling

        checkpoint = self._need().checkpoint
        check_flag("model_defaults", model_defaults)
        recommended = checkpoint.generation_defaults if model_defaults else None
        chosen, settings = resolve_sampling(
            params, overrides, recommended, checkpoint.container, self._options.origin
        )
        return self._bound(chosen), settings

    def _bound(self, params: SamplingParams) -> SamplingParams:
        """With their constraint, and what else is text, made ready for this vocabulary. ConstraintError."""
        source, texts = params.constraint_source(), params.text_breakers
        if source is None and not texts:
            return params
        return params.bound(
            None if source is None else self._compile(source),
            breakers=self._spelled(texts) if texts else None,
        )

    def _spelled(self, texts: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """Every sequence of tokens that these breakers of dry stand for; the last few lists are kept."""
        self._need()
        return self._breakers(texts)

    def compile_constraint(self, **constraint: Any) -> Compiled:
        """One of json_schema=, regex=, grammar=, choices= (and json_whitespace, json_lenient) made ready for this
        vocabulary: `compiled.state()` is a `constraints.base.ConstraintState`. Requests compile by themselves, and
        find what was compiled lately. Errors: UsageError, ConstraintError."""
        from pellucid.sampling.params import SamplingParams

        source = SamplingParams(**constraint).constraint_source()
        if source is None:
            raise UsageError("compile_constraint: give json_schema, regex, grammar or choices")
        return self._compile(source)

    def _compile(self, source: tuple[str, str, bool, bool]) -> Compiled:
        from pellucid.constraints.base import Source
        from pellucid.constraints.compiled import Compiler

        loaded = self._need()
        if self._compiler is None:
            self._compiler = Compiler(loaded.tokenizer, loaded.model.vocabulary_size, loaded.eos_ids)
        return self._compiler.compile(Source(*source))

    def _check(self, ids: Sequence[int], loaded: Loaded, following: Mapping[str, int] | None) -> None:
        context, longest = loaded.capacity.context_length, loaded.model.context_length
        name_of = option_of if self._options.origin == COMMAND_LINE else str
        check_token_ids(ids, loaded.model.vocabulary_size, context, longest, following, name_of)

    def _open_driver(self) -> Driver:
        self._need()
        return self._driver

    def _need(self) -> Loaded:
        if self._loaded is None:
            raise UsageError("this LLM is closed; make a new one")
        return self._loaded

    def __enter__(self) -> Self:
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
        rounded = "bf16 activations, " if shown["activations"] == "bf16" else ""
        run = f"kv {shown['kv_format']}, {rounded}{shown['num_threads']} threads, {shown['backend']}"
        size = f"{len(model.layers)} layers of width {model.width}, context {shown['context_length']}"
        return f"LLM({shown['model']!r}: {model.architecture}, {size}, {run})"


def _spelled(tokenizer: Tokenizer, texts: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    from pellucid.text.breakers import breaker_sequences

    return breaker_sequences(tokenizer, texts)
