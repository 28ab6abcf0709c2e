"""What a model is, told from its file without loading its weights: `pellucid info`, `LLM.info`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pellucid.capacity import kv_bytes_per_token
from pellucid.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from pellucid.models.base import Model
    from pellucid.text.tokenizer import Tokenizer
    from pellucid.types import LayerSpec
    from pellucid.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class FormatShare:
    """The tensors of one weight format."""

    num_tensors: int
    num_parameters: int
    num_bytes: int


@dataclass(frozen=True)
class ModelInfo:
    """Facts of one checkpoint. Bytes are bytes, sizes are counts of elements."""

    name: str
    path: str
    container: str  # "gguf" or "safetensors"
    architecture: str
    num_parameters: int
    weight_bytes: int
    formats: Mapping[str, FormatShare]  # by the format's name, largest first
    layers: tuple[LayerSpec, ...]
    width: int
    vocabulary_size: int
    context_length: int
    has_chat_template: bool
    adds_bos: bool
    special_tokens: Mapping[
        str, tuple[int, ...]
    ]  # piece -> ids: BOS and end-of-sequence first, then the others
    eos_ids: tuple[int, ...]
    generation_defaults: Mapping[str, Any]  # what the model's author recommends; applied only when asked for

    @property
    def kv_format(self) -> str:
        """What kv_format="auto" means for this model."""
        return automatic_kv_format(self.formats)

    def kv_bytes(self, context_length: int, kv_format: str = "auto") -> int:
        """Bytes of K and V of one sequence. UsageError: longer than the model's context, or below 1."""
        if not 1 <= context_length <= self.context_length:
            raise UsageError(
                f"context_length {context_length} is out of range: this model has 1 to {self.context_length}"
            )
        chosen = self.kv_format if kv_format == "auto" else kv_format
        return context_length * kv_bytes_per_token(self.layers, chosen)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        out = {name: value for name, value in vars(self).items() if name not in ("formats", "layers")}
        out["formats"] = {name: vars(share) for name, share in self.formats.items()}
        out["layers"] = [vars(layer) for layer in self.layers]
        return out | {"kv_format": self.kv_format, "kv_bytes_per_token": self.kv_bytes(1)}

    def rows(self) -> list[tuple[str, str]]:
        """(label, value) lines for people."""
        return [
            ("name", self.name),
            ("file", self.path),
            ("architecture", f"{self.architecture} ({self.container})"),
            ("parameters", f"{self.num_parameters:,}"),
            (
                "weights",
                "; ".join([size(self.weight_bytes), *(_share(*item) for item in self.formats.items())]),
            ),
            ("layers", f"{len(self.layers)}, width {self.width}"),
            ("attention", "; ".join(_layer_lines(self.layers))),
            ("vocabulary", f"{self.vocabulary_size:,}"),
            ("context", f"{self.context_length:,} tokens"),
            ("chat template", "yes" if self.has_chat_template else "no"),
            ("BOS added", "yes" if self.adds_bos else "no"),
            ("end of sequence", ", ".join(map(str, self.eos_ids)) or "none"),
            ("special tokens", _special_line(self.special_tokens)),
            ("author's sampling", _defaults_line(self.generation_defaults)),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{label:<18} {value}" for label, value in self.rows())

    def _repr_html_(self) -> str:
        from html import escape

        cells = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in self.rows())
        return f"<table>{cells}</table>"


def _share(name: str, share: FormatShare) -> str:
    tensors = "tensor" if share.num_tensors == 1 else "tensors"
    return f"{name} {size(share.num_bytes)} in {share.num_tensors} {tensors}"


def _layer_lines(layers: tuple[LayerSpec, ...]) -> list[str]:
    lines = []
    for layer, count in Counter(layers).items():
        reach = "all earlier positions" if layer.window is None else f"a window of {layer.window:,}"
        heads = f"{layer.num_kv_heads} KV head{'s' if layer.num_kv_heads != 1 else ''} of {layer.head_dim}"
        lines.append(f"{count} layers: {heads}, {reach}")
    return lines


def _special_line(special: Mapping[str, tuple[int, ...]], most: int = 12) -> str:
    shown = [f"{piece} {', '.join(map(str, ids))}" for piece, ids in list(special.items())[:most]]
    rest = len(special) - len(shown)
    return "  ".join(shown + ([f"and {rest:,} more"] if rest else [])) or "none"


def _defaults_line(defaults: Mapping[str, Any]) -> str:
    if not defaults:
        return "none"
    return ", ".join(f"{k}={v}" for k, v in defaults.items()) + " (applied only with --model-defaults)"


def size(num_bytes: int) -> str:
    """Bytes in the largest binary unit that leaves at least 1."""
    value, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{num_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def automatic_kv_format(formats: Mapping[str, Any], activations: str = "f32") -> str:
    """kv_format="auto": K and V in float32 for float checkpoints, so that nothing is rounded that the model's
    author did not round; as i16 (integers of 14 bits) where activations are rounded far more coarsely: for quantised
    checkpoints to integers of 8 bits, on request to bf16."""
    is_float = all(name in ("F32", "F16", "BF16") for name in formats)
    return "f32" if is_float and activations == "f32" else "i16"


def weight_formats(checkpoint: Checkpoint) -> dict[str, FormatShare]:
    """The tensors of a checkpoint by format, most bytes first."""
    shares: dict[str, FormatShare] = {}
    for name in checkpoint.tensor_names:
        label, num_values, num_bytes = checkpoint.stored(name)
        old = shares.get(label, FormatShare(0, 0, 0))
        shares[label] = FormatShare(
            old.num_tensors + 1, old.num_parameters + num_values, old.num_bytes + num_bytes
        )
    return dict(sorted(shares.items(), key=lambda item: -item[1].num_bytes))


def describe(
    checkpoint: Checkpoint, model: Model, tokenizer: Tokenizer | None, eos_ids: frozenset[int]
) -> ModelInfo:
    """The facts of a checkpoint and its (perhaps weightless) model."""
    formats = weight_formats(checkpoint)
    special: dict[str, tuple[int, ...]] = {}
    if tokenizer is not None:
        first = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        for token in dict.fromkeys([*first, *sorted(eos_ids), *sorted(tokenizer.special_ids)]):
            piece = tokenizer.piece(token)
            special[piece] = (*special.get(piece, ()), token)
    config = checkpoint.config
    name = (
        config.get("general.name")
        or config.get("_name_or_path")
        or checkpoint.path.rstrip("/").rpartition("/")[2]
    )
    return ModelInfo(
        name=str(name),
        path=str(checkpoint.path),
        container=checkpoint.container,
        architecture=checkpoint.architecture,
        num_parameters=sum(share.num_parameters for share in formats.values()),
        weight_bytes=sum(share.num_bytes for share in formats.values()),
        formats=formats,
        layers=tuple(model.layers),
        width=model.width,
        vocabulary_size=model.vocabulary_size,
        context_length=model.context_length,
        has_chat_template=tokenizer is not None and tokenizer.chat_template is not None,
        adds_bos=tokenizer is not None and tokenizer.adds_bos,
        special_tokens=special,
        eos_ids=tuple(sorted(eos_ids)),
        generation_defaults=dict(checkpoint.generation_defaults),
    )


def inspect_model(path_or_name: str) -> ModelInfo:
    """The facts of a model that is not loaded: only its header, its norm vectors and its vocabulary are read.

    Errors: ModelNotFoundError, ModelFileError, UnsupportedModelError.
    """
    from pellucid.models.base import models
    from pellucid.text.tokenizer import load_tokenizer
    from pellucid.weights.checkpoint import open_checkpoint
    from pellucid.weights.locate import locate

    path = locate(path_or_name)
    checkpoint = open_checkpoint(path)
    model = models[checkpoint.architecture].load(checkpoint, _Weightless())
    tokenizer = load_tokenizer(path)
    return describe(checkpoint, model, tokenizer, end_of_sequence_ids(checkpoint, tokenizer))


def end_of_sequence_ids(checkpoint: Checkpoint, tokenizer: Tokenizer | None) -> frozenset[int]:
    """The ids that end a text: the tokenizer's, and those of generation_config.json (else of config.json).

    ModelFileError: they are no ints.
    """
    found = set(tokenizer.eos_ids) if tokenizer is not None else set()
    field, value = "generation_config: eos_token_id", checkpoint.generation_defaults.get("eos_token_id")
    if value is None and checkpoint.container != "gguf":
        field, value = "config.json: eos_token_id", checkpoint.config.get("eos_token_id")
    for token in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise ModelFileError(checkpoint.path, field, f"expected token ids, got {value!r:.60}")
        found.add(token)
    return frozenset(found)


class _Weightless:
    """The load-time half of `Ops`, keeping nothing: a model loaded with it knows its sizes; it cannot run."""

    name = "none"

    def matrix(self, weight: Any, bias: Any = None) -> None:
        return None

    def head(self, weight: Any) -> None:
        return None

    def embedding(self, weight: Any) -> None:
        return None

    def rope_table(self, inv_freq: Any, max_positions: int, scale: float = 1.0) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a model that was opened for its facts only cannot run (ops.{name})")
