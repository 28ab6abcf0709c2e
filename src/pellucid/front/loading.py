"""From a name to an engine that is ready to run, with every setting of it and its origin."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pellucid.capacity import KV_FORMATS, Capacity, plan_capacity, usable_cpus
from pellucid.errors import UsageError
from pellucid.sampling.values import as_int
from pellucid.settings import DEFAULT, MACHINE, MODEL_FILE, Setting, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from pellucid import _native
    from pellucid.engine.engine import Engine
    from pellucid.fetch.progress import Progress
    from pellucid.llm import LLM
    from pellucid.models.base import Model
    from pellucid.ops.base import Ops
    from pellucid.text.tokenizer import Tokenizer
    from pellucid.weights.checkpoint import Checkpoint

BACKENDS = {"cpu": ("pellucid.ops.cpu", "CpuOps"), "reference": ("pellucid.ops.reference", "ReferenceOps")}
# What the first request will import: imported while the weights are being packed.
FIRST_REQUEST = (
    "pellucid.serving.running",
    "pellucid.resolve",
    "pellucid.sampling.sampler",
    "pellucid.decoding.sample",
)
ACTIVATIONS = ("f32", "bf16")  # what matrices in BF16 multiply
BLOCK_SIZE = 32  # positions of one KV block
DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_CHUNK = 128
DEFAULT_SEQUENCES = 64
# Tables are allocated for so many.
MOST = {"num_threads": 1024, "prefill_chunk": 1 << 20, "max_sequences": 1 << 16, "draft_corpus": 1 << 26}
_INTS = ("num_threads", "prefill_chunk", "context_length", "kv_memory", "max_sequences")  # at least 1


@dataclass(frozen=True)
class LoadOptions:
    """What a caller asked for; None: not said. `origin` is what the settings call this caller."""

    num_threads: int | None = None
    prefill_chunk: int | None = None
    context_length: int | None = None
    kv_format: str | None = None
    kv_memory: int | None = None
    activations: str | None = None
    backend: str | None = None
    max_sequences: int | None = None
    prefix_caching: bool | None = None
    draft_model: LLM | str | os.PathLike[str] | None = None
    draft_corpus: int | None = None
    origin: str = "caller"

    def check(self) -> None:
        """UsageError: a value is of the wrong type or out of range."""
        for name in (*_INTS, "draft_corpus"):
            value, most, least = getattr(self, name), MOST.get(name), int(name in _INTS)
            if value is None:
                continue
            number = as_int(value)
            if number is None or number < least or (most and number > most):
                kind = f"an int from {least} to {most}" if most else f"an int of at least {least}"
                raise UsageError(f"{name}: expected {kind}, got {value!r}")
            object.__setattr__(self, name, number)  # NumPy's integers become int
        _one_of("kv_format", self.kv_format, ("auto", *KV_FORMATS))
        _one_of("activations", self.activations, ACTIVATIONS)
        _one_of("backend", self.backend, tuple(BACKENDS))
        if self.prefix_caching is not None and not isinstance(self.prefix_caching, bool):
            raise UsageError(f"prefix_caching: expected True or False, got {self.prefix_caching!r}")


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise UsageError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True)
class Loaded:
    """A model with all that runs it."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    model: Model
    ops: Ops
    engine: Engine
    capacity: Capacity
    eos_ids: frozenset[int]
    settings: Settings

    @property
    def places(self) -> int:
        """Samples that a long list of prompts has in the engine at a time: those of a pass, and as many in line."""
        return 2 * self.engine.scheduler.max_sequences


@dataclass(frozen=True)
class Begun:
    """A model that is open, and whose weights are being packed by native threads: `load` goes on with it."""

    name: str | os.PathLike[str]  # as it was given
    path: Path
    options: LoadOptions
    progress: Progress | None
    checkpoint: Checkpoint
    ops: Ops
    model: Model
    num_threads: int
    since: float  # perf_counter


def begin(
    path_or_name: str | os.PathLike[str],
    options: LoadOptions,
    progress: Progress | None = None,
    arena: _native.Arena | None = None,
) -> Begun:
    """Locate, open, and have the weights packed: the sooner it is called, the more is imported meanwhile.

    arena: memory for the weights that was asked for before.
    Errors: UsageError, ModelNotFoundError, DownloadError, ModelFileError, UnsupportedModelError.
    """
    from pellucid.models.base import models
    from pellucid.weights.checkpoint import open_checkpoint
    from pellucid.weights.locate import locate

    since = perf_counter()
    options.check()
    path = locate(path_or_name, progress=progress)
    checkpoint = open_checkpoint(path)
    family = models[checkpoint.architecture]
    threads = options.num_threads or usable_cpus()
    ops = _backend(options, threads, arena, checkpoint)
    model = family.load(checkpoint, ops)
    if options.activations == "bf16" and not ops.num_bf16_products:
        from pellucid.info import weight_formats

        formats = ", ".join(weight_formats(checkpoint))
        raise UsageError(
            f"activations: bf16 is for matrices in BF16, and this model multiplies none (its tensors: {formats}); "
            "leave it out"
        )
    return Begun(path_or_name, path, options, progress, checkpoint, ops, model, threads, since)


def load(begun: Begun) -> Loaded:
    """Read the vocabulary, wait for the weights and make the engine.

    Errors: UsageError, ModelFileError, UnsupportedModelError.
    """
    from pellucid.engine.engine import Engine
    from pellucid.info import automatic_kv_format, end_of_sequence_ids, weight_formats
    from pellucid.text.tokenizer import load_tokenizer

    options, checkpoint, model, ops = begun.options, begun.checkpoint, begun.model, begun.ops
    tokenizer = load_tokenizer(begun.path)
    kv_format = options.kv_format or "auto"
    if kv_format == "auto":
        kv_format = automatic_kv_format(weight_formats(checkpoint), options.activations or "f32")
    max_sequences = options.max_sequences or DEFAULT_SEQUENCES
    capacity = plan_capacity(
        model.layers,
        model.context_length,
        kv_format=kv_format,
        context_length=options.context_length,
        kv_memory=options.kv_memory,
        max_sequences=max_sequences,
        block_size=BLOCK_SIZE,
        origin=options.origin,
    )
    chunk = options.prefill_chunk or DEFAULT_CHUNK
    engine = Engine(
        ops.replaying(model),
        ops,
        num_blocks=capacity.num_blocks,
        block_size=capacity.block_size,
        kv_format=kv_format,
        prefill_chunk=chunk,
        max_sequences=max_sequences,
        prefix_caching=options.prefix_caching is not False,
        context_length=capacity.context_length,
    )
    eos_ids = end_of_sequence_ids(checkpoint, tokenizer)
    for module in FIRST_REQUEST:
        importlib.import_module(module)
    ops.finish_loading()
    checkpoint.release()
    settings = _settings(begun, kv_format, capacity, eos_ids)
    return Loaded(checkpoint, tokenizer, model, ops, engine, capacity, eos_ids, settings)


def _backend(options: LoadOptions, threads: int, arena: _native.Arena | None, checkpoint: Checkpoint) -> Ops:
    name = options.backend or "cpu"
    module, class_name = BACKENDS[name]
    kind = getattr(importlib.import_module(module), class_name)
    bf16 = options.activations == "bf16"
    if name != "cpu":
        plain: Ops = kind(bf16_activations=bf16)
        return plain
    if arena is None:
        from pellucid import _native

        arena = _native.Arena(checkpoint.num_bytes)
    ops: Ops = kind(threads, arena=arena, bf16_activations=bf16)
    return ops


def _settings(begun: Begun, kv_format: str, capacity: Capacity, eos_ids: frozenset[int]) -> Settings:
    options, name, path = begun.options, os.fspath(begun.name), str(begun.path)

    def given(setting: str, value: Any, otherwise: str = DEFAULT, note: str = "") -> Setting:
        said = getattr(options, setting) is not None
        return Setting(setting, value, options.origin if said else otherwise, "" if said else note)

    automatic = options.kv_format in (None, "auto")
    rule = "f32 for float weights, i16 for quantised ones"
    if options.activations == "bf16":
        rule = "i16 for bf16 activations"
    return Settings([
        Setting("model", name, options.origin, "" if name == path else path),
        given("backend", options.backend or "cpu"),
        given("num_threads", begun.num_threads, MACHINE, "the CPUs that this process may use"),
        given("prefill_chunk", options.prefill_chunk or DEFAULT_CHUNK),
        Setting("context_length", capacity.context_length, capacity.context_origin, capacity.context_note),
        Setting(
            "kv_format",
            kv_format,
            DEFAULT if automatic else options.origin,
            f"auto: {rule}" if automatic else "",
        ),
        given("activations", options.activations or "f32"),
        given(
            "kv_memory",
            capacity.kv_bytes,
            MACHINE,
            f"bytes reserved, touched as tokens are written: {capacity.bytes_per_token} a token",
        ),
        given("max_sequences", options.max_sequences or DEFAULT_SEQUENCES),
        given("prefix_caching", options.prefix_caching is not False),
        given("draft_model", None if options.draft_model is None else str(options.draft_model)),
        given("draft_corpus", options.draft_corpus or 0),
        Setting("eos_ids", eos_ids, MODEL_FILE, "tokenizer and generation_config"),
    ])  # fmt: skip
