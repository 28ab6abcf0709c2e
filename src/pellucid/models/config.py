"""A checkpoint's settings, each read once with its type, its bounds and the meaning of its absence.

Two vocabularies of settings exist: GGUF metadata (`llama.block_count`, as llama.cpp writes them) and the
Hub's config.json (`num_hidden_layers`). Every read names both keys, in that order; None where one has no
such key. A setting that would change the numbers and that we do not run is refused by its name, never
skipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final

import numpy as np

from pellucid.errors import ModelFileError, UnsupportedModelError
from pellucid.models.base import Checkpoint

# Bounds on what a file may claim. Several times the largest models known, small enough that their products
# fit 64 bits and that a list with one small entry a layer is nothing.
MAX_LAYERS: Final = 1024
MAX_WIDTH: Final = 1 << 18
MAX_HEADS: Final = 1 << 12
MAX_HEAD_DIM: Final = 1 << 10
MAX_MLP_WIDTH: Final = 1 << 21
MAX_CONTEXT: Final = 1 << 22

_REQUIRED: Final = object()

# config.json: settings of features that we do not run, with the values at which they do nothing.
_HUB_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "quantization_config": (None,),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "n_routed_experts": (None, 0),
    "num_experts_per_tok": (None, 0),
    "moe_intermediate_size": (None, 0),
    "partial_rotary_factor": (None, 1, 1.0),
    "clip_qkv": (None,),
    "alibi": (None, False),
    "use_mrope": (None, False),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "embedding_multiplier": (None, 1, 1.0),
    "residual_multiplier": (None, 1, 1.0),
    "attention_multiplier": (None,),
    "use_bidirectional_attention": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "no_rope_layers": (None, []),
    "attention_chunk_size": (None,),
    "num_kv_shared_layers": (None, 0),
}

# GGUF: the same, under the architecture's prefix.
_GGUF_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_shared_count": (0,),
    "nextn_predict_layers": (0,),
    "use_parallel_residual": (False,),
    "swin_norm": (False,),
    "logit_scale": (1.0,),
    "residual_scale": (1.0,),
    "embedding_scale": (1.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "router_logit_softcapping": (0.0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.shared_kv_layers": (0,),
    "attention.output_scale": (1.0,),
    "attention.key_length_mla": (0,),
    "attention.value_length_mla": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0, -1.0),  # the whole of YaRN; not stated
    "rope.scaling.yarn_log_multiplier": (0.0,),
}

# GGUF: settings in the two families that shape attention which a model file reads, or which inform only.
# Any other one there is a feature that we do not know.
_GGUF_KNOWN: Final = frozenset({
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.scale",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_attn_factor",
})  # fmt: skip


class Settings:
    """Typed, bounded reads of one checkpoint's configuration; every error names the file and the key."""

    def __init__(self, checkpoint: Checkpoint, *, hub_defaults: Mapping[str, Any] | None = None) -> None:
        """hub_defaults: what an absent key of config.json means, where the Hub's configurations leave keys
        out."""
        self.path = checkpoint.path
        self.is_gguf = checkpoint.container == "gguf"
        self._prefix = f"{checkpoint.config.get('general.architecture')}." if self.is_gguf else ""
        values: Mapping[str, Any] = checkpoint.config
        if not self.is_gguf:
            nested = values.get("text_config")  # where image-and-text checkpoints keep the text model's
            values = {**values, **nested} if isinstance(nested, dict) else values
            values = {**(hub_defaults or {}), **values}
        self._values = values
        self._refuse_unknown_features()

    # --- reads ----------------------------------------------------------------------------------------
    def integer(
        self, gguf: str | None, hub: str | None, *, low: int = 1, high: int, default: Any = _REQUIRED
    ) -> int:
        """An integer in [low, high]. A default is for absence only, and may be None (then low is 0 or
        more)."""
        key, value = self._find(gguf, hub, default)
        if value is None and default is None:
            return 0
        if self.is_gguf and isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():
            value = value[0]  # one entry a layer, all the same
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
            raise self.error(key, f"expected an integer from {low} to {high}, found {_show(value)}")
        return int(value)

    def number(self, gguf: str | None, hub: str | None, *, high: float, default: Any = _REQUIRED) -> float:
        """A finite number in (0, high]."""
        key, value = self._find(gguf, hub, default)
        return self.checked_number(key, value, high)

    def flag(self, gguf: str | None, hub: str | None, *, default: bool) -> bool:
        key, value = self._find(gguf, hub, default)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, found {_show(value)}")
        return value

    def choice(
        self, gguf: str | None, hub: str | None, meanings: Mapping[str, str], *, default: Any = _REQUIRED
    ) -> str:
        """A name among the keys of `meanings`, as its value there."""
        key, value = self._find(gguf, hub, default)
        if not isinstance(value, str) or value not in meanings:
            raise self.unsupported(
                key, f"{_show(value)} is not supported; pellucid runs {', '.join(meanings)}"
            )
        return meanings[value]

    def raw(self, gguf: str | None, hub: str | None) -> Any:
        """The value as it stands; None if absent."""
        return self._find(gguf, hub, None)[1]

    def checked_number(self, key: str, value: Any, high: float) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, Real)
            or not math.isfinite(float(value))
            or not 0 < float(value) <= high
        ):
            raise self.error(key, f"expected a number above 0 and at most {high:g}, found {_show(value)}")
        return float(value)

    # --- errors ---------------------------------------------------------------------------------------
    def error(self, key: str, problem: str) -> ModelFileError:
        return ModelFileError(self.path, key, problem)

    def unsupported(self, key: str, problem: str) -> UnsupportedModelError:
        return UnsupportedModelError(self.path, key, problem)

    def key(self, gguf: str | None, hub: str | None) -> str:
        """The full name of this setting in this container."""
        name = gguf if self.is_gguf else hub
        return "" if name is None else self._prefix + name

    def _find(self, gguf: str | None, hub: str | None, default: Any) -> tuple[str, Any]:
        key = self.key(gguf, hub)
        value = self._values.get(key) if key else None
        if value is None:  # JSON's null means absent, too
            if default is _REQUIRED:
                raise self.error(key or str(gguf or hub), "is missing")
            return key, default
        return key, value

    def _refuse_unknown_features(self) -> None:
        for name, neutral in (_GGUF_NEUTRAL if self.is_gguf else _HUB_NEUTRAL).items():
            value = self._values.get(self._prefix + name)
            if value is not None and not any(_equal(value, entry) for entry in neutral):
                raise self.unsupported(
                    self._prefix + name, f"{_show(value)} asks for a feature that is not supported"
                )
        if self.is_gguf:
            for family in ("attention.", "rope."):
                for key, value in self._values.items():
                    name = key.removeprefix(self._prefix)
                    if (
                        key.startswith(self._prefix + family)
                        and name not in _GGUF_KNOWN | _GGUF_NEUTRAL.keys()
                    ):
                        raise self.unsupported(key, f"{_show(value)}: this setting is not known to pellucid")


def _equal(value: Any, neutral: Any) -> bool:
    return isinstance(value, type(neutral) | Real if isinstance(neutral, Real) else type(neutral)) and bool(
        value == neutral
    )


def _show(value: Any) -> str:
    """A value of the file for a one-line message, cut to a readable length."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class DecoderShape:
    """The sizes that Llama-like decoders share (llama, qwen2, qwen3, gemma3)."""

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    norm_eps: float
    context_length: int

    @property
    def query_width(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.num_kv_heads * self.head_dim


def decoder_shape(settings: Settings) -> DecoderShape:
    """Read and check the sizes of a Llama-like decoder. Errors: ModelFileError naming the setting."""
    width = settings.integer("embedding_length", "hidden_size", high=MAX_WIDTH)
    num_heads = settings.integer("attention.head_count", "num_attention_heads", high=MAX_HEADS)
    num_kv_heads = settings.integer(
        "attention.head_count_kv", "num_key_value_heads", high=MAX_HEADS, default=num_heads
    )
    if num_heads % num_kv_heads:
        raise settings.error(
            settings.key("attention.head_count_kv", "num_key_value_heads"),
            f"{num_heads} query heads cannot be shared out among {num_kv_heads} key and value heads",
        )
    return DecoderShape(
        num_layers=settings.integer("block_count", "num_hidden_layers", high=MAX_LAYERS),
        width=width,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=_head_dim(settings, width, num_heads),
        mlp_width=settings.integer("feed_forward_length", "intermediate_size", high=MAX_MLP_WIDTH),
        norm_eps=settings.number("attention.layer_norm_rms_epsilon", "rms_norm_eps", high=1.0),
        context_length=settings.integer("context_length", "max_position_embeddings", high=MAX_CONTEXT),
    )


def _head_dim(settings: Settings, width: int, num_heads: int) -> int:
    """The stated size of a head, or width / heads; even, because rotation works on pairs."""
    head_dim = settings.integer("attention.key_length", "head_dim", high=MAX_HEAD_DIM, default=None)
    if head_dim == 0:
        if width % num_heads:
            raise settings.error(
                settings.key("attention.head_count", "num_attention_heads"),
                f"a width of {width} cannot be divided among {num_heads} heads, and no head size is given",
            )
        head_dim = width // num_heads
    if head_dim % 2 or head_dim > MAX_HEAD_DIM:
        raise settings.error(
            settings.key("attention.key_length", "head_dim"),
            f"expected an even head size up to {MAX_HEAD_DIM}, found {head_dim}",
        )
    for name in ("attention.value_length", "rope.dimension_count"):
        found = settings.integer(name, None, high=MAX_HEAD_DIM, default=head_dim)
        if found != head_dim:
            raise settings.unsupported(
                settings.key(name, None), f"{found} differs from the head size {head_dim}"
            )
    return head_dim


def layer_windows(
    settings: Settings, num_layers: int, window: int | None, layer_types: Any
) -> list[int | None]:
    """The attention window of each layer from config.json's `layer_types`, one name a layer."""
    if not isinstance(layer_types, list) or len(layer_types) != num_layers:
        raise settings.error(
            "layer_types", f"expected a list of {num_layers} names, found {_show(layer_types)}"
        )
    windows: list[int | None] = []
    for kind in layer_types:
        if kind not in ("full_attention", "sliding_attention"):
            raise settings.unsupported("layer_types", f"{_show(kind)} is not supported")
        if kind == "sliding_attention" and window is None:
            raise settings.error("sliding_window", "is missing, but layer_types has sliding_attention")
        windows.append(window if kind == "sliding_attention" else None)
    return windows
